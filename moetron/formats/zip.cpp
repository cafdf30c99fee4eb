#include "moetron/formats/zip.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <zlib.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kDescriptor = 0x08074b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr size_t kLocalBytes = 30;
constexpr size_t kCentralBytes = 46;
constexpr size_t kEndBytes = 22;
constexpr size_t kEnd64Bytes = 56;
constexpr size_t kLocatorBytes = 20;
constexpr size_t kMaxComment = 0xffff;
constexpr uint32_t kTooLarge = 0xffffffff;  // the number stands in the zip64 field
constexpr uint16_t kZip64Field = 1;
constexpr uint16_t kPaddingField = 0x4246;  // "FB", as torch has it
constexpr uint16_t kVersion64 = 45;
// Sizes and CRC stand behind the data; names are UTF-8.
constexpr uint16_t kFlags = 0x0808;
constexpr uint64_t kAlignment = 64;
constexpr size_t kFieldHeader = 4;

uint64_t number_at(std::string_view text, size_t place, size_t bytes) {
  uint64_t number = 0;
  for (size_t i = bytes; i-- > 0;)
    number = number << 8 | static_cast<unsigned char>(text[place + i]);
  return number;
}

void put(std::string& text, uint64_t number, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(number >> (8 * i) & 0xff);
}

class DirectoryReader {
 public:
  DirectoryReader(const FileWindow& file, const std::string& name) : file_(file), name_(name) {}

  ZipDirectory read() {
    find_directory();
    const std::string text = bytes_at(begin_, bytes_);
    ZipDirectory entries;
    size_t place = 0;
    while (place < text.size()) place = read_entry(text, place, entries);
    MT_CHECK_INPUT(entries.size() == num_entries_, name_, " has a zip directory of ",
                   entries.size(), " entries, its end says ", num_entries_);
    check_apart(entries);
    return entries;
  }

 private:
  std::string bytes_at(uint64_t place, uint64_t count) const {
    MT_CHECK_INPUT(place <= file_.size() && count <= file_.size() - place, name_,
                   " is cut short: it has ", file_.size(), " bytes");
    std::string bytes(size_t(count), '\0');
    file_.read(place, std::as_writable_bytes(std::span(bytes)));
    return bytes;
  }

  void find_directory() {
    const uint64_t tail_bytes =
        std::min<uint64_t>(file_.size(), kEndBytes + kMaxComment + kLocatorBytes);
    const uint64_t tail_begin = file_.size() - tail_bytes;
    const std::string tail = bytes_at(tail_begin, tail_bytes);
    size_t end = tail.size() < kEndBytes ? tail.size() : tail.size() - kEndBytes + 1;
    bool found = false;
    while (!found && end > 0) {
      --end;
      found = end + kEndBytes <= tail.size() && number_at(tail, end, 4) == kEnd &&
              end + kEndBytes + number_at(tail, end + 20, 2) == tail.size();
    }
    MT_CHECK_INPUT(found, name_, " is cut short or no zip archive: it has no end of a directory");
    num_entries_ = number_at(tail, end + 10, 2);
    bytes_ = number_at(tail, end + 12, 4);
    begin_ = number_at(tail, end + 16, 4);
    if (end < kLocatorBytes || number_at(tail, end - kLocatorBytes, 4) != kEnd64Locator) return;
    const std::string end64 = bytes_at(number_at(tail, end - kLocatorBytes + 8, 8), kEnd64Bytes);
    MT_CHECK_INPUT(number_at(end64, 0, 4) == kEnd64, name_, " has a damaged zip64 directory");
    num_entries_ = number_at(end64, 32, 8);
    bytes_ = number_at(end64, 40, 8);
    begin_ = number_at(end64, 48, 8);
  }

  // So that all of them together are no more than the file.
  void check_apart(const ZipDirectory& entries) const {
    std::multimap<uint64_t, uint64_t> ends;  // by beginning
    for (const auto& [entry, place] : entries)
      if (place.bytes > 0) ends.emplace(place.offset, place.offset + place.bytes);
    uint64_t end = 0;
    for (const auto& [begin, its_end] : ends) {
      MT_CHECK_INPUT(begin >= end, name_, " has a zip directory whose entries overlap");
      end = its_end;
    }
  }

  // Returns where the next one begins.
  size_t read_entry(const std::string& text, size_t place, ZipDirectory& entries) const {
    MT_CHECK_INPUT(
        place + kCentralBytes <= text.size() && number_at(text, place, 4) == kCentralHeader, name_,
        " has a damaged zip directory");
    const size_t name_bytes = number_at(text, place + 28, 2);
    const size_t extra_bytes = number_at(text, place + 30, 2);
    const size_t extra = place + kCentralBytes + name_bytes;
    const size_t next = extra + extra_bytes + number_at(text, place + 32, 2);
    MT_CHECK_INPUT(next <= text.size(), name_, " has a damaged zip directory");
    const std::string entry = text.substr(place + kCentralBytes, name_bytes);
    MT_CHECK_INPUT((number_at(text, place + 8, 2) & 1) == 0, name_, ": ", entry, " is encrypted");
    MT_CHECK_INPUT(number_at(text, place + 10, 2) == 0, name_, ": ", entry,
                   " is compressed, which torch.save never does");
    uint64_t stored = number_at(text, place + 20, 4);
    uint64_t bytes = number_at(text, place + 24, 4);
    uint64_t header = number_at(text, place + 42, 4);
    read_zip64(text.substr(extra, extra_bytes), {&bytes, &stored, &header});
    MT_CHECK_INPUT(stored == bytes, name_, ": ", entry, " takes ", stored, " bytes for ", bytes);
    const auto crc = static_cast<uint32_t>(number_at(text, place + 16, 4));
    const ZipEntry found{data_begin(header, bytes), bytes, crc};
    const bool is_new = entries.emplace(entry, found).second;
    MT_CHECK_INPUT(is_new, name_, " holds ", entry, " twice");
    return next;
  }

  // The numbers that are too large for their fields, in this order.
  void read_zip64(const std::string& extra, std::initializer_list<uint64_t*> numbers) const {
    size_t place = 0;
    while (place + kFieldHeader <= extra.size()) {
      const size_t bytes = number_at(extra, place + 2, 2);
      size_t field = place + kFieldHeader;
      place = field + bytes;
      if (number_at(extra, field - kFieldHeader, 2) != kZip64Field) continue;
      for (uint64_t* number : numbers) {
        if (*number != kTooLarge) continue;
        MT_CHECK_INPUT(field + 8 <= std::min(place, extra.size()), name_,
                       " has a damaged zip64 field");
        *number = number_at(extra, field, 8);
        field += 8;
      }
    }
  }

  // The data lies behind the entry's own header, whose length only that header tells.
  uint64_t data_begin(uint64_t header, uint64_t bytes) const {
    const std::string text = bytes_at(header, kLocalBytes);
    MT_CHECK_INPUT(number_at(text, 0, 4) == kLocalHeader, name_,
                   " has a zip directory that points beside its entries");
    const uint64_t begin = header + kLocalBytes + number_at(text, 26, 2) + number_at(text, 28, 2);
    MT_CHECK_INPUT(begin <= file_.size() && bytes <= file_.size() - begin, name_,
                   " is cut short: an entry of ", bytes, " bytes begins at ", begin, " of ",
                   file_.size());
    return begin;
  }

  const FileWindow& file_;
  const std::string& name_;
  uint64_t num_entries_ = 0;
  uint64_t begin_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace

bool has_crcs(const ZipDirectory& entries) {
  return std::ranges::any_of(entries, [](const auto& entry) { return entry.second.crc != 0; });
}

uint32_t zip_crc(std::span<const std::byte> bytes, uint32_t before) {
  if (bytes.empty()) return before;  // where zlib begins anew
  const auto* data = reinterpret_cast<const Bytef*>(bytes.data());
  return static_cast<uint32_t>(crc32_z(before, data, bytes.size()));
}

void check_crc(const std::filesystem::path& file, std::string_view record, uint32_t expected,
               uint32_t found) {
  std::array<char, 64> crcs{};
  std::snprintf(crcs.data(), crcs.size(), "%08x expected, %08x found", expected, found);
  MT_CHECK_INPUT(found == expected, file.string(), " is damaged in ", record, ": CRC-32 ",
                 crcs.data());
}

bool is_zip(const FileWindow& file) {
  std::string begin(4, '\0');
  if (file.size() < begin.size()) return false;
  file.read(0, std::as_writable_bytes(std::span(begin)));
  return number_at(begin, 0, 4) == kLocalHeader;
}

ZipDirectory read_zip_directory(const FileWindow& file, const std::string& name) {
  return DirectoryReader(file, name).read();
}

void ZipWriter::begin(const std::string& name, uint64_t bytes) {
  end();
  entries_.push_back({.name = name, .header = file_.position(), .bytes = bytes});
  const bool is_large = bytes >= kTooLarge;
  std::string header;
  put(header, kLocalHeader, 4);
  put(header, is_large ? kVersion64 : 0, 2);
  put(header, kFlags, 2);
  put(header, 0, 2 + 2 + 2);  // stored; no time, no date
  put(header, 0, 4);          // the CRC stands behind the data
  put(header, is_large ? uint64_t{kTooLarge} : 0, 4);
  put(header, is_large ? uint64_t{kTooLarge} : 0, 4);
  put(header, name.size(), 2);
  std::string extra;
  if (is_large) {
    put(extra, kZip64Field, 2);
    put(extra, 16, 2);
    put(extra, bytes, 8);
    put(extra, bytes, 8);
  }
  const uint64_t unpadded =
      file_.position() + kLocalBytes + name.size() + extra.size() + kFieldHeader;
  const uint64_t padding = (kAlignment - unpadded % kAlignment) % kAlignment;
  put(extra, kPaddingField, 2);
  put(extra, padding, 2);
  extra.append(size_t(padding), 'Z');
  put(header, extra.size(), 2);
  file_.write(header + name + extra);
}

void ZipWriter::write(std::span<const std::byte> bytes) {
  Entry& entry = entries_.back();
  entry.crc = zip_crc(bytes, entry.crc);
  entry.written += bytes.size();
  file_.write(bytes);
}

void ZipWriter::add(const std::string& name, std::string_view text) {
  begin(name, text.size());
  write(std::as_bytes(std::span(text)));
}

void ZipWriter::end() {
  if (entries_.empty()) return;
  const Entry& entry = entries_.back();
  MT_CHECK(entry.written == entry.bytes, "zip entry ", entry.name, " of ", entry.bytes,
           " bytes got ", entry.written);
  const size_t size_bytes = entry.bytes >= kTooLarge ? 8 : 4;
  std::string descriptor;
  put(descriptor, kDescriptor, 4);
  put(descriptor, entry.crc, 4);
  put(descriptor, entry.bytes, size_bytes);
  put(descriptor, entry.bytes, size_bytes);
  file_.write(descriptor);
}

void ZipWriter::finish() {
  end();
  const uint64_t begin = file_.position();
  for (const Entry& entry : entries_) {
    std::string extra;
    const auto small = [&](uint64_t number) {
      if (number < kTooLarge) return number;
      put(extra, number, 8);
      return uint64_t{kTooLarge};
    };
    const uint64_t bytes = small(entry.bytes);
    small(entry.bytes);  // the stored size, which is the same
    const uint64_t header = small(entry.header);
    std::string text;
    put(text, kCentralHeader, 4);
    put(text, kVersion64, 2);
    put(text, extra.empty() ? 0 : kVersion64, 2);
    put(text, kFlags, 2);
    put(text, 0, 2 + 2 + 2);  // stored; no time, no date
    put(text, entry.crc, 4);
    put(text, bytes, 4);
    put(text, bytes, 4);
    put(text, entry.name.size(), 2);
    put(text, extra.empty() ? 0 : kFieldHeader + extra.size(), 2);
    put(text, 0, 2 + 2 + 2);  // no comment; disk 0; no attributes
    put(text, 0, 4);
    put(text, header, 4);
    text += entry.name;
    if (!extra.empty()) {
      put(text, kZip64Field, 2);
      put(text, extra.size(), 2);
    }
    file_.write(text + extra);
  }
  const uint64_t end = file_.position();
  std::string text;
  put(text, kEnd64, 4);
  put(text, kEnd64Bytes - 12, 8);
  put(text, kVersion64, 2);
  put(text, kVersion64, 2);
  put(text, 0, 4 + 4);  // disks
  put(text, entries_.size(), 8);
  put(text, entries_.size(), 8);
  put(text, end - begin, 8);
  put(text, begin, 8);
  put(text, kEnd64Locator, 4);
  put(text, 0, 4);
  put(text, end, 8);
  put(text, 1, 4);
  put(text, kEnd, 4);
  put(text, 0, 2 + 2);
  for (int i = 0; i < 2; ++i) put(text, std::min<uint64_t>(entries_.size(), 0xffff), 2);
  put(text, std::min<uint64_t>(end - begin, kTooLarge), 4);
  put(text, std::min<uint64_t>(begin, kTooLarge), 4);
  put(text, 0, 2);
  file_.write(text);
}

}  // namespace moetron
