#include "moetron/chat/byte_source.h"

#include <algorithm>
#include <string_view>
#include <vector>
#include <zlib.h>
#include <zstd.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

constexpr size_t kChunk = size_t{1} << 18;

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(const std::filesystem::path& path) : file_(path) {}

  size_t read(std::span<char> out) override {
    const size_t count = std::min(out.size(), file_.size() - place_);
    if (count == 0) return 0;
    file_.read(place_, std::as_writable_bytes(out.first(count)));
    place_ += count;
    return count;
  }
  uint64_t bytes_done() const override { return place_; }
  uint64_t bytes_in_all() const override { return file_.size(); }

 private:
  FileReader file_;
  size_t place_ = 0;
};

// What the two compressed kinds share: a chunk of the file that is being unpacked.
class PackedSource : public ByteSource {
 public:
  explicit PackedSource(const std::filesystem::path& path)
      : name_(path.string()), file_(path), chunk_(kChunk) {}
  uint64_t bytes_done() const override { return file_.bytes_done() - rest_.size(); }
  uint64_t bytes_in_all() const override { return file_.bytes_in_all(); }

 protected:
  // False at the end of the file.
  bool refill() {
    if (rest_.empty()) rest_ = std::span(chunk_).first(file_.read(chunk_));
    return !rest_.empty();
  }
  [[noreturn]] void fail(const char* what) const { throw InputError(concat(name_, " ", what)); }

  std::string name_;
  PlainSource file_;
  std::vector<char> chunk_;
  std::span<char> rest_;
  bool is_inside_ = false;  // of a member or frame that has not ended
};

class GzipSource : public PackedSource {
 public:
  explicit GzipSource(const std::filesystem::path& path) : PackedSource(path) {
    constexpr int kGzip = 16 + MAX_WBITS;
    MT_CHECK(inflateInit2(&stream_, kGzip) == Z_OK, "zlib does not start");
  }
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  size_t read(std::span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    while (stream_.avail_out == out.size()) {
      if (!refill()) {
        if (is_inside_) fail("is cut short: its gzip data does not end");
        return 0;
      }
      stream_.next_in = reinterpret_cast<Bytef*>(rest_.data());
      stream_.avail_in = static_cast<uInt>(rest_.size());
      is_inside_ = true;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status != Z_OK && status != Z_STREAM_END)
        fail("is damaged: its gzip data does not unpack");
      rest_ = rest_.last(stream_.avail_in);
      if (status == Z_STREAM_END) {  // another member may follow
        is_inside_ = false;
        inflateReset(&stream_);
      }
    }
    return out.size() - stream_.avail_out;
  }

 private:
  z_stream stream_{};
};

class ZstdSource : public PackedSource {
 public:
  explicit ZstdSource(const std::filesystem::path& path)
      : PackedSource(path), stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    MT_CHECK(stream_ != nullptr, "zstd does not start");
  }

  size_t read(std::span<char> out) override {
    ZSTD_outBuffer unpacked{out.data(), out.size(), 0};
    while (unpacked.pos == 0) {
      const bool has_more = refill();
      ZSTD_inBuffer packed{rest_.data(), rest_.size(), 0};
      const size_t status = ZSTD_decompressStream(stream_.get(), &unpacked, &packed);
      if (ZSTD_isError(status) != 0) fail("is damaged: its Zstandard data does not unpack");
      rest_ = rest_.subspan(packed.pos);
      if (packed.pos > 0 || unpacked.pos > 0) is_inside_ = status != 0;
      if (unpacked.pos > 0 || has_more) continue;
      if (is_inside_) fail("is cut short: its Zstandard data does not end");
      return 0;
    }
    return unpacked.pos;
  }

 private:
  std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream_;
};

}  // namespace

std::unique_ptr<ByteSource> ByteSource::open(const std::filesystem::path& path) {
  char begin[4] = {};
  const size_t size = PlainSource(path).read(begin);
  const std::string_view magic(begin, size);
  if (magic.starts_with("\x1f\x8b")) return std::make_unique<GzipSource>(path);
  if (magic == "\x28\xb5\x2f\xfd") return std::make_unique<ZstdSource>(path);
  return std::make_unique<PlainSource>(path);
}

}  // namespace moetron
