// What the fuzzing programs share: readers take files, so the input becomes one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/base/temporary_folder.h"

namespace moetron {

inline const std::filesystem::path& fuzz_folder() {
  static const TemporaryFolder folder("fuzz", "/dev/shm");
  return folder.path();
}

// Writes fuzz_folder()/name, without the syncs that files of users get.
inline std::filesystem::path write_input(const char* name, std::string_view bytes) {
  const std::filesystem::path path = fuzz_folder() / name;
  std::FILE* file = std::fopen(path.c_str(), "wb");
  const bool written =
      file != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  if (!written || std::fclose(file) != 0) std::abort();  // the machine's fault, not the reader's
  return path;
}

// A reader may refuse its input with an InputError, and nothing else.
template <class Read>
int read_or_refuse(const Read& read) {
  try {
    read();
  } catch (const InputError&) {
  }
  return 0;
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace moetron
