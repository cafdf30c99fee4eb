#include "moetron/base/json.h"

#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

constexpr int kMaxDepth = 64;
// Json finds a key by going through all of an object's: more than these would take minutes.
constexpr size_t kMaxKeys = size_t{1} << 14;

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
  std::vector<std::set<std::string>> keys;  // of the open objects
  const Json::parser_callback_t watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    MT_CHECK_INPUT(depth <= kMaxDepth, name, " is nested deeper than ", kMaxDepth, " levels");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const bool is_new = keys.back().insert(parsed.get<std::string>()).second;
      MT_CHECK_INPUT(keys.back().size() <= kMaxKeys, name, " holds an object of more than ",
                     kMaxKeys, " keys");
      MT_CHECK_INPUT(is_new, name, " holds the key \"", parsed.get<std::string>(), "\" twice");
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::parse_error& error) {
    throw InputError(concat(name, " is not JSON: error at byte ", error.byte, " of ", text.size()));
  } catch (const Json::out_of_range&) {
    throw InputError(concat(name, " holds a number beyond the range of doubles"));
  }
}

Json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

void write_json(const std::filesystem::path& path, const Json& value) {
  write_file(path, value.dump(2) + "\n");
}

}  // namespace moetron
