// What is found out once about the shapes that this process computes, and used again: plans of
// cuDNN, algorithms of cuBLASLt, the fastest of several kernels.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <typeindex>

namespace moetron {

// All of it in one place, with one lifetime. Thread-safe.
class KernelCaches {
 public:
  KernelCaches() = default;
  KernelCaches(const KernelCaches&) = delete;
  KernelCaches& operator=(const KernelCaches&) = delete;

  // That of all threads. Never destroyed: at exit cuDNN and the driver may be gone before it.
  static KernelCaches& of_process();

  // The cache of this type, made at its first use.
  template <class Cache>
  Cache& of() {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<void>& cache = all_[typeid(Cache)];
    if (!cache) cache = std::make_shared<Cache>();
    return *static_cast<Cache*>(cache.get());
  }

  // Frees what was found: graphs, algorithms and their host memory. Nothing may be computing.
  void clear() {
    const std::lock_guard lock(mutex_);
    all_.clear();
  }

 private:
  std::mutex mutex_;
  std::map<std::type_index, std::shared_ptr<void>> all_;
};

}  // namespace moetron
