#include "moetron/metrics/event_reader.h"

#include <cstring>
#include <string>

#include "moetron/base/error.h"
#include "moetron/metrics/tensorboard.h"

namespace moetron {
namespace {

constexpr size_t kHeadSize = 12;  // length (8 bytes), masked CRC of it
constexpr size_t kTailSize = 4;   // masked CRC of the data

template <class T>
T raw(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// Cuts a protocol buffer message into its fields.
class FieldReader {
 public:
  FieldReader(std::string_view message, const std::string& place) : rest_(message), place_(place) {}

  // Moves on to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = take_varint();
    number_ = tag >> 3;
    switch (tag & 7) {
      case 0:
        integer_ = take_varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(take_varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        throw InputError(
            concat(place_, " is no event: field ", number_, " is of the unknown type ", tag & 7));
    }
    type_ = tag & 7;
    return true;
  }

  bool is(uint64_t number, uint64_t type) const { return number_ == number && type_ == type; }
  uint64_t integer() const { return integer_; }      // of type 0
  std::string_view bytes() const { return bytes_; }  // of the other types

 private:
  std::string_view take(uint64_t size) {
    MT_CHECK_INPUT(size <= rest_.size(), place_, " is no event: a field of ", size, " bytes where ",
                   rest_.size(), " are left");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  uint64_t take_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    throw InputError(concat(place_, " is no event: a number has more than 64 bits"));
  }

  std::string_view rest_;
  const std::string& place_;
  uint64_t number_ = 0;
  uint64_t type_ = 0;
  uint64_t integer_ = 0;
  std::string_view bytes_;
};

// Event: 2 step, 5 Summary. Summary: 1 Value, repeated. Value: 1 tag, 2 simple_value (float).
template <class OnScalar>
void read_event(std::string_view event, const std::string& place, const OnScalar& on_scalar) {
  int64_t step = 0;
  std::string_view summary;
  for (FieldReader field(event, place); field.next();) {
    if (field.is(2, 0)) step = static_cast<int64_t>(field.integer());
    if (field.is(5, 2)) summary = field.bytes();
  }
  for (FieldReader value(summary, place); value.next();) {
    if (!value.is(1, 2)) continue;
    std::string_view tag;
    std::string_view number;
    for (FieldReader field(value.bytes(), place); field.next();) {
      if (field.is(1, 2)) tag = field.bytes();
      if (field.is(2, 5)) number = field.bytes();
    }
    if (!number.empty()) on_scalar(tag, step, raw<float>(number));
  }
}

}  // namespace

bool is_event_file(std::string_view bytes) {
  return bytes.size() >= kHeadSize &&
         raw<uint32_t>(bytes.substr(8)) == masked_crc(bytes.substr(0, 8));
}

void read_scalars(
    std::string_view bytes, const std::filesystem::path& path,
    const std::function<void(std::string_view tag, int64_t step, double value)>& on_scalar) {
  size_t at = 0;
  while (bytes.size() - at >= kHeadSize) {
    const std::string_view rest = bytes.substr(at);
    const std::string place = concat(path.string(), ": the record at byte ", at);
    MT_CHECK_INPUT(is_event_file(rest), place, " is damaged: the checksum of its length is wrong");
    const auto length = raw<uint64_t>(rest);
    const size_t room = rest.size() - kHeadSize;
    if (room < kTailSize || length > room - kTailSize) return;
    const std::string_view event = rest.substr(kHeadSize, length);
    MT_CHECK_INPUT(raw<uint32_t>(rest.substr(kHeadSize + length)) == masked_crc(event), place,
                   " is damaged: its checksum is wrong");
    read_event(event, place, on_scalar);
    at += kHeadSize + length + kTailSize;
  }
}

}  // namespace moetron
