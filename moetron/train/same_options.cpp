#include "moetron/train/same_options.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"

namespace moetron {
namespace {

std::string common_options(Json json) {
  json.erase("logging");
  for (auto& [group, members] : json.items()) {
    for (const char* own : {"data-path", "data-cache-path", "tokenizer-model", "num-threads"}) {
      members.erase(own);
    }
  }
  return json.dump();
}

[[noreturn]] void refuse(const std::string& first, const std::string& other, size_t rank) {
  const Json mine = parse_json(first, "options"), theirs = parse_json(other, "options");
  for (const auto& [group, members] : mine.items()) {
    for (const auto& [name, value] : members.items()) {
      const Json& differs = theirs.at(group).at(name);
      MT_CHECK_CONFIG(value == differs, name, " must be the same on all ranks: rank 0 has ",
                      value.dump(), ", rank ", rank, " has ", differs.dump());
    }
  }
  throw InternalError("options that differ in no option");
}

}  // namespace

void check_same_options(const Json& options, Communicator& world) {
  if (world.size() == 1) return;
  const std::string text = common_options(options);
  const std::vector<std::string> hashes =
      gather_texts(world, hash_hex(std::as_bytes(std::span(text))));
  if (std::all_of(hashes.begin(), hashes.end(), [&](const auto& h) { return h == hashes[0]; }))
    return;
  const std::vector<std::string> texts = gather_texts(world, text);
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] != texts[0]) refuse(texts[0], texts[rank], rank);
  }
}

}  // namespace moetron
