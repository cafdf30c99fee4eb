# What attention of a CUDA build needs. cuDNN is torch's own, beside it where it came from pip: two versions in
# one program would not do. Its frontend is headers alone, which know how to call NVRTC.
file(GLOB attention_pip_includes ${MOETRON_TORCH_DIR}/../nvidia/*/include)
find_path(MOETRON_CUDNN_INCLUDE_DIR cudnn.h HINTS ${attention_pip_includes} ${CUDAToolkit_INCLUDE_DIRS})
file(GLOB attention_cudnn ${MOETRON_TORCH_DIR}/../nvidia/cudnn/lib/libcudnn.so.9)
if(NOT attention_cudnn)
  find_library(MOETRON_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
  set(attention_cudnn ${MOETRON_CUDNN_LIBRARY})
endif()
file(GLOB attention_nvrtc ${MOETRON_TORCH_DIR}/../nvidia/*/lib/libnvrtc.so.1*)
if(NOT attention_nvrtc AND TARGET CUDA::nvrtc)
  set(attention_nvrtc CUDA::nvrtc)
endif()
if(NOT MOETRON_CUDNN_INCLUDE_DIR OR NOT attention_cudnn OR NOT attention_nvrtc)
  message(FATAL_ERROR "no cuDNN 9 (cudnn.h and libcudnn.so) or no NVRTC (libnvrtc.so) beside MOETRON_TORCH_DIR "
          "(${MOETRON_TORCH_DIR}) in ../nvidia, where pip puts them, nor in the CUDA toolkit")
endif()

file(GLOB attention_pip_frontend ${MOETRON_TORCH_DIR}/../include
     ${CMAKE_SOURCE_DIR}/.venv-cuda/lib/python3*/site-packages/include)
find_path(MOETRON_CUDNN_FRONTEND_DIR cudnn_frontend.h HINTS ${attention_pip_frontend}
          DOC "The folder of the headers of cuDNN's frontend")
if(NOT MOETRON_CUDNN_FRONTEND_DIR)
  message(FATAL_ERROR "no headers of cuDNN's frontend beside torch or in .venv-cuda: "
          "`pip install --no-deps nvidia-cudnn-frontend` into the environment of MOETRON_TORCH_DIR, or set "
          "MOETRON_CUDNN_FRONTEND_DIR to the folder that holds cudnn_frontend.h")
endif()

list(GET attention_nvrtc 0 attention_nvrtc)
target_sources(moetron_kernels PRIVATE cuda/attention_graph.cpp)
target_include_directories(moetron_kernels SYSTEM PRIVATE ${MOETRON_CUDNN_INCLUDE_DIR} ${MOETRON_CUDNN_FRONTEND_DIR})
target_link_libraries(moetron_kernels PUBLIC ${attention_cudnn} ${attention_nvrtc})
# Its own includes are most of what it compiles, and no torch is among them.
set_source_files_properties(cuda/attention_graph.cpp PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
