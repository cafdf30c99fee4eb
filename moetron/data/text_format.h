// What a text file is: JSON lines, one JSON document, or plain text.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace moetron {

inline constexpr std::string_view kBlanks = " \t\r\n";

enum class TextKind { kLines, kDocument, kPlain };

// By the ending alone, in capitals or not: .jsonl and .ndjson, .json (lines or a document, as the
// content says), .txt. Nothing for other names.
std::optional<TextKind> kind_by_name(const std::filesystem::path& path, std::string_view text);

// By the content of a file whose name does not say: lines of JSON objects, an array or object that
// parses, or nothing, where it is no JSON.
std::optional<TextKind> json_kind_by_content(std::string_view text);

// README, LICENSE and the like, with any ending: what stands beside data and is none.
bool is_about_data(const std::filesystem::path& path);

}  // namespace moetron
