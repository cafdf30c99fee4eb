// JSON files read with errors that name file, place and key (nlohmann/json underneath). Duplicate
// keys are refused, as safetensors demands and as no config means.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace moetron {

using Json =
    nlohmann::ordered_json;  // keeps the order of keys, so that what is read can be written back

// Throws InputError "NAME is not JSON: ..." with the byte offset.
Json parse_json(std::string_view text, const std::string& name);
Json read_json(const std::filesystem::path& path);

// Indented by two, keys in order, newline at the end; written whole or not at all.
void write_json(const std::filesystem::path& path, const Json& value);

}  // namespace moetron
