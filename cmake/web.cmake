# edgerecall_web: the core as WebAssembly, a module that web/src/core.ts loads.
target_sources(edgerecall_core PRIVATE cpp/web/no_affinity.cpp)
add_executable(edgerecall_web cpp/web/exports.cpp)
target_link_libraries(edgerecall_web PRIVATE edgerecall_predictors edgerecall_flags)
target_link_options(edgerecall_web PRIVATE
  -sMODULARIZE=1 -sEXPORT_ES6=1 -sENVIRONMENT=web,worker -sALLOW_MEMORY_GROWTH=1 -sMAXIMUM_MEMORY=2GB -sFILESYSTEM=0
  -sEXPORTED_FUNCTIONS=_malloc,_free -sEXPORTED_RUNTIME_METHODS=UTF8ToString -sTEXTDECODER=2 --no-entry)
set_target_properties(edgerecall_web PROPERTIES OUTPUT_NAME edgerecall SUFFIX .mjs)
