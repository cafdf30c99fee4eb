#include "moetron/formats/manifest.h"

#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/parallel_for.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr int kManifestVersion = 1;

// The manifest's own checksum: of the document without that key.
std::string checksum(const Json& body) {
  const std::string text = body.dump();
  return hash_hex(std::as_bytes(std::span(text.data(), text.size())));
}

Json read_document(const fs::path& folder) {
  const fs::path path = folder / kManifestFile;
  Json document = read_json(path);
  const bool is_manifest = document.is_object() && document.contains("checksum") &&
                           document.value("version", Json()) == kManifestVersion &&
                           document.contains("extra") && document.contains("files") &&
                           document["files"].is_array();
  MT_CHECK_INPUT(is_manifest, path.string(), " is no manifest of version ", kManifestVersion);
  const Json expected = document["checksum"];
  document.erase("checksum");
  const std::string found = checksum(document);
  MT_CHECK_INPUT(expected == found, path.string(), " is damaged: checksum ", expected.dump(),
                 " expected, \"", found, "\" found");
  return document;
}

// Names lead to files below the folder only.
bool is_inside(const std::string& name) {
  if (name.empty() || name.front() == '/') return false;
  for (const fs::path& part : fs::path(name))
    if (part == ".." || part.empty()) return false;
  return true;
}

uint64_t num_blocks(uint64_t size) {
  return size / kManifestBlockBytes + (size % kManifestBlockBytes != 0 ? 1 : 0);
}

std::vector<ManifestFile> parse_files(const Json& document, const std::string& path) {
  std::vector<ManifestFile> files;
  try {
    for (const Json& entry : document["files"]) {
      ManifestFile file;
      file.name = entry.at("name").get<std::string>();
      const Json& size = entry.at("size");
      // A number beyond 64 bits is a floating-point one.
      MT_CHECK_INPUT(size.is_number_unsigned(), path, ": the size of ", file.name, " (",
                     size.dump(), ") is no count of bytes");
      file.size = size.get<uint64_t>();
      file.blocks = entry.at("xxh3_128").get<std::vector<std::string>>();
      MT_CHECK_INPUT(is_inside(file.name) && file.blocks.size() == num_blocks(file.size), path,
                     " has a bad entry for ", file.name);
      files.push_back(std::move(file));
    }
  } catch (const Json::exception&) {
    throw InputError(path + " has an entry without name, size or xxh3_128");
  }
  return files;
}

// `first`: the number of the file's first block among those of all files.
void check_file(const fs::path& folder, const ManifestFile& expected, uint64_t first,
                ManifestPart part, int num_threads) {
  const std::string path = (folder / expected.name).string();
  const FileReader file(path);
  MT_CHECK_INPUT(file.size() == expected.size, path, " has ", file.size(),
                 " bytes, its manifest says ", expected.size);
  parallel_for(num_threads, expected.blocks.size(), [&](uint64_t i) {
    if (part.count == 0 || (first + i) % part.count != part.index) return;
    const uint64_t begin = i * kManifestBlockBytes;
    const uint64_t size = std::min(kManifestBlockBytes, expected.size - begin);
    const auto memory = std::make_unique_for_overwrite<std::byte[]>(size);
    const std::span<std::byte> block(memory.get(), size);
    file.read(begin, block);
    const std::string found = hash_hex(block);
    MT_CHECK_INPUT(found == expected.blocks[i], path, " is damaged in block ", i, " (bytes from ",
                   begin, "): XXH3-128 ", expected.blocks[i], " expected, ", found, " found");
  });
}

}  // namespace

ManifestFile hash_bytes(const std::string& name, std::span<const std::byte> bytes) {
  ManifestFile result{name, bytes.size(), {}};
  for (uint64_t begin = 0; begin < result.size; begin += kManifestBlockBytes) {
    const uint64_t count = std::min(kManifestBlockBytes, result.size - begin);
    result.blocks.push_back(hash_hex(bytes.subspan(begin, count)));
  }
  return result;
}

ManifestFile hash_file(const fs::path& folder, const std::string& name) {
  return hash_bytes(name, MappedFile(folder / name).bytes());
}

void write_manifest(const fs::path& folder, std::vector<ManifestFile> files, const Json& extra) {
  std::sort(files.begin(), files.end(),
            [](const ManifestFile& a, const ManifestFile& b) { return a.name < b.name; });
  Json document;
  document["version"] = kManifestVersion;
  document["block_bytes"] = kManifestBlockBytes;
  document["extra"] = extra;
  document["files"] = Json::array();
  for (const ManifestFile& file : files) {
    MT_CHECK(is_inside(file.name), "manifest entry \"", file.name, "\" leaves its folder");
    MT_CHECK(file.blocks.size() == num_blocks(file.size), file.name, " has ", file.blocks.size(),
             " block hashes for ", file.size, " bytes");
    document["files"].push_back(
        {{"name", file.name}, {"size", file.size}, {"xxh3_128", file.blocks}});
  }
  document["checksum"] = checksum(document);
  write_json(folder / kManifestFile, document);
}

std::vector<ManifestFile> read_manifest(const fs::path& folder) {
  return parse_files(read_document(folder), (folder / kManifestFile).string());
}

Json verify_manifest(const fs::path& folder, ManifestPart part, int num_threads) {
  const Json document = read_document(folder);
  uint64_t first = 0;
  for (const ManifestFile& file : parse_files(document, (folder / kManifestFile).string())) {
    check_file(folder, file, first, part, num_threads);
    first += file.blocks.size();
  }
  return document["extra"];
}

}  // namespace moetron
