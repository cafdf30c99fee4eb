# What the matrix products of a CUDA build need. Headers and library of cuBLASLt are torch's own, beside it
# where it came from pip: two versions in one program would not do.
file(GLOB products_pip_includes ${MOETRON_TORCH_DIR}/../nvidia/*/include)
find_path(MOETRON_CUBLASLT_INCLUDE_DIR cublasLt.h HINTS ${products_pip_includes} ${CUDAToolkit_INCLUDE_DIRS})
file(GLOB products_blaslt ${MOETRON_TORCH_DIR}/../nvidia/*/lib/libcublasLt.so*)
if(NOT products_blaslt AND TARGET CUDA::cublasLt)
  set(products_blaslt CUDA::cublasLt)
endif()
if(NOT MOETRON_CUBLASLT_INCLUDE_DIR OR NOT products_blaslt)
  message(FATAL_ERROR "no cuBLASLt (cublasLt.h and libcublasLt.so) beside MOETRON_TORCH_DIR (${MOETRON_TORCH_DIR}) "
          "in ../nvidia, where pip puts them, nor in the CUDA toolkit")
endif()
list(GET products_blaslt 0 products_blaslt)

file(GLOB products_pip_cutlass ${MOETRON_TORCH_DIR}/../cutlass_library/source/include
     ${CMAKE_SOURCE_DIR}/.venv-cuda/lib/python3*/site-packages/cutlass_library/source/include)
find_path(MOETRON_CUTLASS_DIR cutlass/gemm/group_array_problem_shape.hpp HINTS ${products_pip_cutlass}
          DOC "The folder of CUTLASS 4's headers")
if(NOT MOETRON_CUTLASS_DIR)
  message(FATAL_ERROR "no headers of CUTLASS 4 beside torch or in .venv-cuda: `pip install nvidia-cutlass` into the "
          "environment of MOETRON_TORCH_DIR, or set MOETRON_CUTLASS_DIR to the folder that holds cutlass/cutlass.h")
endif()

target_sources(moetron_kernels PRIVATE blas.cpp cuda/blas_product.cpp)
target_include_directories(moetron_kernels SYSTEM PRIVATE ${MOETRON_CUBLASLT_INCLUDE_DIR} ${MOETRON_CUTLASS_DIR})
target_link_libraries(moetron_kernels PUBLIC ${products_blaslt})
set_source_files_properties(cuda/fp8_product.cu cuda/fp8_weight_grad.cu cuda/grouped_product.cu cuda/grouped_weight_grad.cu PROPERTIES COMPILE_OPTIONS --expt-relaxed-constexpr)
