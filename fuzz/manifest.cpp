// manifest.json: as it is, and with the checksum that the rest of it should have.
#include "moetron/formats/manifest.h"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz_folder.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"

namespace {

void read_folder() {
  moetron::read_or_refuse([] {
    for (const moetron::ManifestFile& file : moetron::read_manifest(moetron::fuzz_folder())) {
      // No name leads out of the folder.
      const auto path = (moetron::fuzz_folder() / file.name).lexically_normal();
      if (path.string().find(moetron::fuzz_folder().string() + "/") != 0) std::abort();
    }
    moetron::verify_manifest(moetron::fuzz_folder());
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  const std::string_view text = text_of(data, size);
  write_input(kManifestFile, text);
  read_folder();
  return read_or_refuse([&] {
    Json document = parse_json(text, "input");
    if (!document.is_object()) return;
    document.erase("checksum");
    const std::string body = document.dump(-1, ' ', false, Json::error_handler_t::replace);
    document["checksum"] = hash_hex(std::as_bytes(std::span(body)));
    write_input(kManifestFile, document.dump(-1, ' ', false, Json::error_handler_t::replace));
    read_folder();
  });
}
