# libtorch from the torch wheel in .venv (or MOETRON_TORCH_DIR): the target moetron_torch, and the
# precompiled header that every torch unit shares. Builds against 2.11 (CUDA wheel) and 2.13 (CPU wheel).
# find_package(Torch) of a CUDA wheel wants a CUDA toolkit even for CPU programs, so the two or three
# libraries are named here instead.
set(MOETRON_TORCH_DIR "" CACHE PATH "The torch package folder; default: the one in .venv")
if(NOT MOETRON_TORCH_DIR)
  file(GLOB torch_found ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
  if(NOT torch_found)
    message(FATAL_ERROR "no torch in .venv: run scripts/setup.sh, or set MOETRON_TORCH_DIR")
  endif()
  list(GET torch_found 0 torch_found)
  set(MOETRON_TORCH_DIR ${torch_found} CACHE PATH "" FORCE)
endif()
find_path(GLOO_INCLUDE_DIR gloo/algorithm.h REQUIRED)  # headers only: the wheel lacks them
find_package(Threads REQUIRED)
add_library(moetron_torch INTERFACE)
target_include_directories(moetron_torch SYSTEM INTERFACE ${MOETRON_TORCH_DIR}/include
                           ${MOETRON_TORCH_DIR}/include/torch/csrc/api/include ${GLOO_INCLUDE_DIR})
target_compile_definitions(moetron_torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
target_link_libraries(moetron_torch INTERFACE ${MOETRON_TORCH_DIR}/lib/libtorch_cpu.so
                      ${MOETRON_TORCH_DIR}/lib/libc10.so Threads::Threads)
# at::parallel_for is a template: our copies of it run in parallel only if compiled with OpenMP. The
# program then shares the OpenMP library that libtorch_cpu.so loads.
target_compile_options(moetron_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_options(moetron_torch INTERFACE -fopenmp -Wl,--as-needed)
if(MOETRON_CUDA)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25.1 does not know that nvcc 12 and later have C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  endif()
  set(torch_cuda ${MOETRON_TORCH_DIR}/lib/libtorch_cuda.so ${MOETRON_TORCH_DIR}/lib/libc10_cuda.so)
  # One message now instead of hundreds of undefined symbols later. Not kept in the cache: pip may mend it.
  include(CheckCXXSourceCompiles)
  unset(MOETRON_TORCH_CUDA_LINKS CACHE)
  set(CMAKE_REQUIRED_LIBRARIES -Wl,--no-as-needed ${torch_cuda} ${MOETRON_TORCH_DIR}/lib/libtorch_cpu.so
      ${MOETRON_TORCH_DIR}/lib/libc10.so)
  check_cxx_source_compiles("int main() { return 0; }" MOETRON_TORCH_CUDA_LINKS)
  unset(CMAKE_REQUIRED_LIBRARIES)
  if(NOT MOETRON_TORCH_CUDA_LINKS)
    message(FATAL_ERROR "MOETRON_TORCH_DIR (${MOETRON_TORCH_DIR}) is not a torch with CUDA that links: it needs "
            "lib/libtorch_cuda.so and the nvidia-* packages that `pip install torch==2.11.0` brings along")
  endif()
  target_compile_definitions(moetron_torch INTERFACE MOETRON_CUDA)
  target_link_libraries(moetron_torch INTERFACE CUDA::cudart -Wl,--no-as-needed ${torch_cuda})
endif()

add_library(moetron_torch_pch STATIC ${CMAKE_SOURCE_DIR}/cmake/torch_pch.cpp)
target_link_libraries(moetron_torch_pch PRIVATE moetron_warnings PUBLIC moetron_torch)
target_precompile_headers(moetron_torch_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/torch_pch.h)
