// The predictors, one maker for each; which of them a build has is the registry's matter.
#pragma once
#include <exception>
#include <memory>
#include <new>

#include "edgerecall/error.h"
#include "edgerecall/predictor.h"

namespace edgerecall {

using MakePredictor = std::unique_ptr<Predictor> (*)(const Files&, const ModelIO&, const RunOptions&);

/// Throws Unavailable when the library of a runtime that is opened at run time is not there.
void find_onnxruntime(const RunOptions& options);
void find_openvino(const RunOptions& options);

std::unique_ptr<Predictor> make_onnxruntime(const Files& files, const ModelIO& io, const RunOptions& options);
std::unique_ptr<Predictor> make_openvino(const Files& files, const ModelIO& io, const RunOptions& options);
std::unique_ptr<Predictor> make_ncnn(const Files& files, const ModelIO& io, const RunOptions& options);
std::unique_ptr<Predictor> make_mnn(const Files& files, const ModelIO& io, const RunOptions& options);
std::unique_ptr<Predictor> make_tnn(const Files& files, const ModelIO& io, const RunOptions& options);
std::unique_ptr<Predictor> make_lite(const Files& files, const ModelIO& io, const RunOptions& options);
std::unique_ptr<Predictor> make_paddle(const Files& files, const ModelIO& io, const RunOptions& options);

/// The path of an artifact's file. Throws InputError when it has none of this role.
const std::string& file_of(const Files& files, const char* role);

/// Unavailable unless fp32 is asked for.
void only_fp32(const char* runtime, const RunOptions& options);

/// The first line of a foreign message, fit to print.
std::string one_line(const std::string& text);

/// What `work` gives; an exception of a runtime's own becomes RuntimeFailed.
template <typename Work>
auto translated(const std::string& runtime, const Work& work) {
  try {
    return work();
  } catch (const InputError&) {
    throw;
  } catch (const Unavailable&) {
    throw;
  } catch (const RuntimeFailed&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw RuntimeFailed(runtime + ": " + one_line(error.what()));
  }
}

}  // namespace edgerecall
