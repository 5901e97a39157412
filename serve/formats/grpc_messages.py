"""The protocol's gRPC messages, made when they are needed: fields in the order of their numbers.

https://github.com/kserve/open-inference-protocol (grpc) and https://github.com/grpc/grpc (Health). Described here
instead of generated, so that any protobuf reads them, in a pool of their own, beside whatever else has them in this
process.
"""

from __future__ import annotations

from functools import cache
from typing import Any

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
# Each field: '*' before what is repeated, '{}' before the values of a map from texts.
MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready",),
    "ModelReadyRequest": ("string name", "string version"),
    "ModelReadyResponse": ("bool ready",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name", "string version", "*string extensions"),
    "ModelMetadataRequest": ("string name", "string version"),
    "ModelMetadataResponse": (
        "string name",
        "*string versions",
        "string platform",
        "*TensorMetadata inputs",
        "*TensorMetadata outputs",
    ),
    "TensorMetadata": ("string name", "string datatype", "*int64 shape"),
    "ModelInferRequest": (
        "string model_name",
        "string model_version",
        "string id",
        "{}InferParameter parameters",
        "*InferInputTensor inputs",
        "*InferRequestedOutputTensor outputs",
        "*bytes raw_input_contents",
    ),
    "InferInputTensor": (
        "string name",
        "string datatype",
        "*int64 shape",
        "{}InferParameter parameters",
        "InferTensorContents contents",
    ),
    "InferRequestedOutputTensor": ("string name", "{}InferParameter parameters"),
    "ModelInferResponse": (
        "string model_name",
        "string model_version",
        "string id",
        "{}InferParameter parameters",
        "*InferOutputTensor outputs",
        "*bytes raw_output_contents",
    ),
    "InferOutputTensor": (
        "string name",
        "string datatype",
        "*int64 shape",
        "{}InferParameter parameters",
        "InferTensorContents contents",
    ),
    "InferParameter": (
        "bool bool_param",
        "int64 int64_param",
        "string string_param",
        "double double_param",
        "uint64 uint64_param",
    ),
    "InferTensorContents": (
        "*bool bool_contents",
        "*int32 int_contents",
        "*int64 int64_contents",
        "*uint32 uint_contents",
        "*uint64 uint64_contents",
        "*float fp32_contents",
        "*double fp64_contents",
        "*bytes bytes_contents",
    ),
    "HealthCheckRequest": ("string service",),
    "HealthCheckResponse": ("int32 status",),  # an enum on the wire: 1 serving, 2 not serving
}
CHOICES = {"InferParameter": "parameter_choice"}  # of whose fields one is set


@cache
def messages() -> dict[str, Any]:
    """The message classes, by name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="edgerecall/inference.proto", package=PACKAGE, syntax="proto3")

    def add(message: Any, number: int, kind: str, name: str) -> Any:
        field = message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
        if kind in MESSAGES:
            field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
        else:
            field.type = getattr(kinds, f"TYPE_{kind.upper()}")
        return field

    for title, fields in MESSAGES.items():
        message = file.message_type.add(name=title)
        if title in CHOICES:
            message.oneof_decl.add(name=CHOICES[title])
        for number, text in enumerate(fields, 1):
            kind, name = text.split()
            if kind.startswith("{}"):
                entry = message.nested_type.add(name=f"{name.title()}Entry")
                entry.options.map_entry = True
                add(entry, 1, "string", "key")
                add(entry, 2, kind[2:], "value")
                field = message.field.add(name=name, number=number, label=kinds.LABEL_REPEATED)
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{title}.{entry.name}"
                continue
            field = add(message, number, kind.removeprefix("*"), name)
            if kind.startswith("*"):
                field.label = kinds.LABEL_REPEATED
            if title in CHOICES:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        title: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{title}")) for title in MESSAGES
    }
