// Scalars of TensorBoard event files; tensorboard.h tells the format and writes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

namespace moetron {

// Whether the bytes begin like an event file: with the length of a record and its checksum.
bool is_event_file(std::string_view bytes);

// Calls on_scalar(tag, step, value) for every scalar, in the order of the file. `bytes` are all of
// the file, `path` is for messages. A last record that is cut short is left out: the run that
// writes it goes on, or was killed. Throws InputError naming path and byte for a record whose
// checksum is wrong, or that is no event.
void read_scalars(
    std::string_view bytes, const std::filesystem::path& path,
    const std::function<void(std::string_view tag, int64_t step, double value)>& on_scalar);

}  // namespace moetron
