#include "moetron/train/same_start.h"

#include <algorithm>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "moetron/base/build.h"
#include "moetron/base/error.h"
#include "moetron/base/hash.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"

namespace moetron {
namespace {

std::string differs(const std::string& name, const std::string& mine, const std::string& other,
                    int rank) {
  return concat(name, " must be the same on all ranks: rank 0 has ", mine, ", rank ", rank, " has ",
                other);
}

std::string contents(const Json& files) {
  Json text = Json::object();
  for (const auto& [name, file] : files.items()) text[name] = file.at("content");
  return text.dump();
}

[[noreturn]] void refuse_files(const Json& mine, const Json& other, int rank) {
  for (const auto& [name, file] : mine.items()) {
    const Json theirs = other.value(name, Json{{"content", "none"}});
    MT_CHECK_CONFIG(file.at("content") == theirs.at("content"),
                    differs(concat(name, " (", file.at("place").get<std::string>(), ")"),
                            file.at("content").get<std::string>(),
                            theirs.at("content").get<std::string>(), rank));
  }
  for (const auto& [name, file] : other.items()) {
    MT_CHECK_CONFIG(mine.contains(name),
                    differs(name, "none", file.at("content").get<std::string>(), rank));
  }
  throw InternalError("files that differ in no content");
}

}  // namespace

std::string greeting_text(const Json& options, int num_ranks) {
  Json common = options;
  common.erase("logging");
  for (auto& [group, members] : common.items()) {
    for (const char* own : {"data-path", "data-cache-path", "tokenizer-model", "num-threads"}) {
      members.erase(own);
    }
  }
  return Json{{"program", build_identity()}, {"ranks", num_ranks}, {"options", std::move(common)}}
      .dump();
}

std::string name_difference(const std::string& mine, const std::string& other, int rank) {
  if (mine.empty() || other.empty() || mine == other) return "";  // who has read none greets so
  const Json first = parse_json(mine, "greeting"), second = parse_json(other, "greeting");
  if (first.at("program") != second.at("program")) {
    return differs("the program", first.at("program").get<std::string>(),
                   second.at("program").get<std::string>(), rank);
  }
  if (first.at("ranks") != second.at("ranks")) {
    return differs("the number of ranks", first.at("ranks").dump(), second.at("ranks").dump(),
                   rank);
  }
  for (const auto& [group, members] : first.at("options").items()) {
    for (const auto& [name, value] : members.items()) {
      const Json& theirs = second.at("options").at(group).at(name);
      if (value != theirs) return differs(name, value.dump(), theirs.dump(), rank);
    }
  }
  throw InternalError("options that differ in no option");
}

void check_same_files(const Json& files, Communicator& world) {
  if (world.size() == 1) return;
  const std::string text = contents(files);
  const std::vector<std::string> hashes =
      gather_texts(world, hash_hex(std::as_bytes(std::span(text))));
  const auto other =
      std::find_if(hashes.begin(), hashes.end(), [&](const auto& h) { return h != hashes[0]; });
  if (other == hashes.end()) return;
  const std::vector<std::string> texts = gather_texts(world, files.dump());
  const auto rank = static_cast<size_t>(other - hashes.begin());
  refuse_files(parse_json(texts[0], "files"), parse_json(texts[rank], "files"),
               static_cast<int>(rank));
}

}  // namespace moetron
