# Finds pybind11 where the building interpreter has it installed.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(
  COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
  OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _pybind11_result)
if(NOT _pybind11_result EQUAL 0)
  message(FATAL_ERROR "pybind11 is not installed for ${Python_EXECUTABLE}: run '${Python_EXECUTABLE} -m pip install pybind11'")
endif()
find_package(pybind11 CONFIG REQUIRED)
