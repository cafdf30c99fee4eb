// manifest.json of a checkpoint folder: for every file its size and the XXH3-128 of each block of
// 16 MiB. A folder without a manifest is no checkpoint; a block that rotted is named.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "moetron/base/json.h"

namespace moetron {

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr uint64_t kManifestBlockBytes = uint64_t{16} << 20;

struct ManifestFile {
  std::string name;  // relative to the folder, '/' between parts
  uint64_t size = 0;
  std::vector<std::string> blocks;  // hash_hex() of each 16 MiB; the last may be shorter
};

// The entry of a file that holds these bytes.
ManifestFile hash_bytes(const std::string& name, std::span<const std::byte> bytes);

// Reads and hashes folder/name. Writers in parallel hash their own blocks from memory instead.
ManifestFile hash_file(const std::filesystem::path& folder, const std::string& name);

// Writes folder/manifest.json last, after all files are complete. `extra` is the caller's own
// object (step, layout, ...).
void write_manifest(const std::filesystem::path& folder, std::vector<ManifestFile> files,
                    const Json& extra);

// The files that the manifest lists. Throws InputError for a missing or damaged manifest.json.
std::vector<ManifestFile> read_manifest(const std::filesystem::path& folder);

// One of several equal parts of the blocks of a folder, so that ranks may share a check; of a count
// of 0, none of them.
struct ManifestPart {
  uint64_t index = 0;
  uint64_t count = 1;
};

// Checks the size of every file and the hashes of the part's blocks: throws InputError naming file,
// block, expected and found hash; returns `extra`. Reads each of those blocks once, by read() and
// not through a map, so that a bad disk is an error; several threads keep up with fast ones.
Json verify_manifest(const std::filesystem::path& folder, ManifestPart part = {},
                     int num_threads = 1);

}  // namespace moetron
