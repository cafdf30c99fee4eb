#include <algorithm>
#include <memory>
#include <vector>
#include <zlib.h>

#include "moetron/base/error.h"
#include "moetron/base/parallel_for.h"
#include "moetron/formats/zip.h"

namespace moetron {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{16} << 20;

uint64_t num_blocks(const ZipRecord& record) {
  return (record.entry.bytes + kBlockBytes - 1) / kBlockBytes;
}

// A block of a record: threads share large ones, too.
struct RecordBlock {
  const ZipRecord* record = nullptr;
  uint64_t begin = 0;  // bytes of the record
  uint32_t crc = 0;

  uint64_t bytes() const { return std::min(kBlockBytes, record->entry.bytes - begin); }
};

}  // namespace

void check_records(std::span<const ZipRecord> records, int num_threads) {
  std::vector<RecordBlock> blocks;
  for (const ZipRecord& record : records)
    for (uint64_t i = 0; i < num_blocks(record); ++i) blocks.push_back({&record, i * kBlockBytes});
  parallel_for(num_threads, blocks.size(), [&](uint64_t i) {
    RecordBlock& block = blocks[i];
    const auto memory = std::make_unique_for_overwrite<std::byte[]>(block.bytes());
    const std::span<std::byte> bytes(memory.get(), block.bytes());
    FileReader(block.record->file).read(block.record->entry.offset + block.begin, bytes);
    block.crc = zip_crc(bytes);
  });
  for (auto block = blocks.begin(); block != blocks.end();) {
    const ZipRecord& record = *block->record;
    uint32_t found = 0;
    for (; block != blocks.end() && block->record == &record; ++block)
      found = static_cast<uint32_t>(
          crc32_combine(found, block->crc, static_cast<z_off_t>(block->bytes())));
    check_crc(record.file, record.name, record.entry.crc, found);
  }
}

}  // namespace moetron
