#include "moetron/metrics/tensorboard.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/host_name.h"

namespace moetron {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) != 0 ? 0x82f63b78u : 0u);
    table[byte] = value;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

template <class T>
void append_raw(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

// Protocol buffer fields: a tag (number and wire type), then the value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void append_tag(std::string& out, uint64_t field, WireType type) {
  append_varint(out, field << 3 | type);
}

void append_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  append_tag(out, field, kBytes);
  append_varint(out, bytes.size());
  out.append(bytes);
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary (Summary),
// 7 session_log (SessionLog).
std::string event_head() {
  std::string event;
  append_tag(event, 1, kFixed64);
  append_raw(event, wall_time());
  return event;
}

// SessionLog: 1 status, of which 1 is START. It makes TensorBoard drop what it has read of `step`
// and later ones.
std::string session_start(int64_t step) {
  constexpr uint64_t kStart = 1;
  std::string session;
  append_tag(session, 1, kVarint);
  append_varint(session, kStart);
  std::string event = event_head();
  append_tag(event, 2, kVarint);
  append_varint(event, static_cast<uint64_t>(step));
  append_bytes(event, 7, session);
  return event;
}

// As a block of code each, so that nothing in it is markup; a line of backticks cannot end one.
std::string markdown(const SampleAnswer& sample) {
  std::string text;
  for (const auto& [title, part] : {std::pair("prompt", &sample.prompt),
                                    {"answer", &sample.answer},
                                    {"in the data", &sample.in_data}}) {
    text += concat("**", title, "**\n\n    ");
    for (const char c : *part) text += c == '\n' ? std::string("\n    ") : std::string(1, c);
    text += "\n\n";
  }
  return text;
}

constexpr std::string_view kFileStart = "events.out.tfevents.";

// The seconds in the new file's name: TensorBoard reads the files of a folder in the order of their
// names, so that they are later than those of every file there, whatever the clocks of hosts say.
int64_t next_second(const std::filesystem::path& folder) {
  auto second = static_cast<int64_t>(wall_time());
  std::error_code ignored;  // opening reports what is wrong
  for (std::filesystem::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kFileStart)) continue;
    int64_t found = 0;
    std::from_chars(name.data() + kFileStart.size(), name.data() + name.size(), found);
    constexpr int64_t kLatest = int64_t{9'999'999'999};  // ten digits, as the order of names needs
    if (found < kLatest) second = std::max(second, found + 1);
  }
  return second;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes)
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xffu];
  return ~crc;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t last_step) {
  const std::string host = host_name();
  path_ = folder / concat(kFileStart, next_second(folder), ".", host.empty() ? "localhost" : host,
                          ".", ::getpid());
  std::error_code ignored;  // opening reports what is wrong
  std::filesystem::create_directories(folder, ignored);
  file_.open(path_, std::ios::binary | std::ios::app);
  MT_CHECK_CONFIG(file_.is_open(), "cannot write ", path_.string(), ": ", std::strerror(errno));
  std::string event = event_head();
  append_bytes(event, 3, "brain.Event:2");
  write_event(event);
  write_event(session_start(last_step + 1));
}

void TensorBoardWriter::write_event(const std::string& event) {
  std::string frame;
  append_raw(frame, static_cast<uint64_t>(event.size()));
  append_raw(frame, masked_crc(frame));
  frame += event;
  append_raw(frame, masked_crc(event));
  file_.write(frame.data(), static_cast<std::streamsize>(frame.size()));
  file_.flush();
  MT_CHECK_CONFIG(file_.good(), "cannot write ", path_.string(), ": ", std::strerror(errno));
}

void TensorBoardWriter::scalar(const std::string& tag, double value, int64_t step) {
  // Value: 1 tag (string), 2 simple_value (float).
  std::string entry;
  append_bytes(entry, 1, tag);
  append_tag(entry, 2, kFixed32);
  append_raw(entry, static_cast<float>(value));
  write_summary(entry, step);
}

void TensorBoardWriter::text(const std::string& tag, std::string_view markdown, int64_t step) {
  // Value: 1 tag, 8 tensor (TensorProto), 9 metadata (SummaryMetadata). TensorProto: 1 dtype, of
  // which 7 is string, 2 tensor_shape, here of no dim, 8 string_val. SummaryMetadata: 1 plugin_data
  // (1 plugin_name), 4 data_class, of which 2 is TENSOR.
  constexpr uint64_t kString = 7, kTensor = 2;
  std::string tensor;
  append_tag(tensor, 1, kVarint);
  append_varint(tensor, kString);
  append_bytes(tensor, 2, "");
  append_bytes(tensor, 8, markdown);
  std::string plugin;
  append_bytes(plugin, 1, "text");
  std::string metadata;
  append_bytes(metadata, 1, plugin);
  append_tag(metadata, 4, kVarint);
  append_varint(metadata, kTensor);
  std::string entry;
  append_bytes(entry, 1, tag);
  append_bytes(entry, 8, tensor);
  append_bytes(entry, 9, metadata);
  write_summary(entry, step);
}

void TensorBoardWriter::write_summary(std::string_view value, int64_t step) {
  std::string summary;  // 1 value (repeated Value)
  append_bytes(summary, 1, value);
  std::string event = event_head();
  append_tag(event, 2, kVarint);
  append_varint(event, static_cast<uint64_t>(step));
  append_bytes(event, 5, summary);
  write_event(event);
}

void TensorBoardWriter::write(const StepRecord& record) {
  const auto optional_scalar = [&](const char* tag, const std::optional<double>& value) {
    if (value) scalar(tag, *value, record.step);
  };
  const auto rewards = [&](const std::string& tag, const std::optional<Rewards>& of_pairs) {
    if (!of_pairs) return;
    scalar(tag + "/rewards/chosen", of_pairs->chosen, record.step);
    scalar(tag + "/rewards/rejected", of_pairs->rejected, record.step);
    scalar(tag + "/rewards/accuracies", of_pairs->accuracies, record.step);
    scalar(tag + "/rewards/margins", of_pairs->margins, record.step);
  };
  scalar("train/loss", record.loss, record.step);
  rewards("train", record.rewards);
  optional_scalar("train/aux_loss", record.aux_loss);
  optional_scalar("train/grad_norm", record.grad_norm);
  optional_scalar("train/params_norm", record.params_norm);
  if (record.num_zeros_in_grad)
    scalar("train/num_zeros_in_grad", static_cast<double>(*record.num_zeros_in_grad), record.step);
  scalar("train/lr", record.lr, record.step);
  scalar("train/consumed_samples", static_cast<double>(record.consumed_samples), record.step);
  optional_scalar("validation/loss", record.validation_loss);
  optional_scalar("validation/perplexity", validation_perplexity(record));
  rewards("validation", record.validation_rewards);
  for (size_t i = 0; i < record.samples.size(); ++i)
    text(concat("samples/", i), markdown(record.samples[i]), record.step);
  scalar("speed/tokens_per_second_per_device", record.tokens_per_second, record.step);
  scalar("speed/tflops_per_device", record.tflops_per_second, record.step);
  optional_scalar("speed/mfu", record.mfu);
  scalar("speed/seconds_per_step", record.seconds, record.step);
  scalar("memory/gib", static_cast<double>(record.memory_bytes) / (1 << 30), record.step);
  if (record.router_balance) {
    scalar("router/max_load", record.router_balance->max_load, record.step);
    scalar("router/mean_load", record.router_balance->mean_load, record.step);
    scalar("router/idle_share", record.router_balance->idle_share, record.step);
    optional_scalar("router/entropy", record.router_balance->entropy);
    if (record.router_balance->num_dead)
      scalar("router/dead_experts", static_cast<double>(*record.router_balance->num_dead),
             record.step);
  }
  if (record.activation_memory) {
    const auto gib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); };
    scalar("memory/activations_peak_gib", gib(record.activation_memory->peak_bytes), record.step);
    for (const ActivationBytes& entry : record.activation_memory->kept)
      scalar("memory/activations_gib/" + entry.purpose, gib(entry.bytes), record.step);
  }
}

}  // namespace moetron
