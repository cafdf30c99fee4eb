// The test program of tests/oracles/tokenizer_oracle.py:
//   tokenizer_tool PATH encode|encode_special < texts > ids
//   tokenizer_tool PATH decode|decode_skip < ids > texts
//   tokenizer_tool PATH tokens > "VOCAB_SIZE BOS EOS", -1 for a token that there is not
// and of benchmarks/tokenize_speed.py:
//   tokenizer_tool PATH speed TEXTS THREADS TIMES IDS: encodes the texts of the file TEXTS so many
//   times and prints wall time, tokens, the sum of each id times its place from one on (modulo
//   2^64), whether the ids decode to the texts, and the most memory that was used, as JSON. IDS is
//   a file for the ids, or "-".
// PATH is a tokenizer.json, its folder, or "bytes". Each text is a uint32 of bytes and the bytes;
// each list of ids is a uint32 of ids and the int32 ids, all little-endian. The processor
// time of the work alone, in seconds, goes to stderr.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/tokenizer/tokenizer.h"

namespace moetron {
namespace {

// The records of the input: each of a length and so many items of `item_size` bytes.
std::vector<std::string_view> read_records(std::string_view input, size_t item_size) {
  std::vector<std::string_view> records;
  while (!input.empty()) {
    uint32_t length = 0;
    MT_CHECK_INPUT(input.size() >= sizeof(length), "stdin ends within a length");
    std::memcpy(&length, input.data(), sizeof(length));
    input.remove_prefix(sizeof(length));
    MT_CHECK_INPUT(input.size() / item_size >= length, "stdin ends within a record");
    records.push_back(input.substr(0, length * item_size));
    input.remove_prefix(length * item_size);
  }
  return records;
}

void append_record(std::string& output, const void* items, size_t count, size_t item_size) {
  const auto length = static_cast<uint32_t>(count);
  output.append(reinterpret_cast<const char*>(&length), sizeof(length));
  output.append(static_cast<const char*>(items), count * item_size);
}

using Ids = std::vector<int32_t>;

// Each thread takes the next text. [texts]
std::vector<Ids> encode_all(const Tokenizer& tokenizer, const std::vector<std::string_view>& texts,
                            int num_threads) {
  std::vector<Ids> ids(texts.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = 0; (i = next++) < texts.size();) ids[i] = tokenizer.encode(texts[i]);
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return ids;
}

int measure_speed(const std::string& path, const std::vector<std::string>& arguments) {
  const auto tokenizer = Tokenizer::load(path);
  const MappedFile file(arguments[0]);
  const auto once = read_records(file.text(), 1);
  std::vector<std::string_view> texts;
  for (int i = std::stoi(arguments[2]); i > 0; --i)
    texts.insert(texts.end(), once.begin(), once.end());
  const auto begin = std::chrono::steady_clock::now();
  const std::vector<Ids> ids = encode_all(*tokenizer, texts, std::stoi(arguments[1]));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  bool decodes = true;
  for (size_t i = 0; i < once.size(); ++i) decodes &= tokenizer->decode(ids[i]) == once[i];
  uint64_t count = 0;
  uint64_t sum = 0;
  for (const Ids& text : ids)
    for (const int32_t id : text) sum += static_cast<uint64_t>(id) * ++count;
  if (arguments[3] != "-") {
    std::ofstream out(arguments[3], std::ios::binary);
    for (const Ids& text : ids)
      out.write(reinterpret_cast<const char*>(text.data()),
                static_cast<std::streamsize>(text.size() * sizeof(int32_t)));
  }
  std::cout << R"({"seconds": )" << elapsed.count() << R"(, "tokens": )" << count
            << R"(, "checksum": )" << sum << R"(, "decodes": )" << (decodes ? "true" : "false")
            << R"(, "peak_bytes": )" << usage.ru_maxrss * 1024 << "}\n";
  return kExitDone;
}

int run(const std::string& path, const std::string& mode) {
  const auto tokenizer = path == "bytes" ? Tokenizer::bytes() : Tokenizer::load(path);
  if (mode == "tokens") {
    std::cout << tokenizer->vocab_size() << ' ' << tokenizer->bos_id().value_or(-1) << ' '
              << tokenizer->eos_id().value_or(-1) << '\n';
    return kExitDone;
  }
  const std::string input(std::istreambuf_iterator<char>(std::cin), {});
  const bool is_encode = mode.starts_with("encode");
  const auto records = read_records(input, is_encode ? 1 : sizeof(int32_t));
  std::string output;
  const std::clock_t start = std::clock();
  for (const std::string_view record : records) {
    if (is_encode) {
      const auto ids = tokenizer->encode(record, mode == "encode_special");
      append_record(output, ids.data(), ids.size(), sizeof(int32_t));
      continue;
    }
    std::vector<int32_t> ids(record.size() / sizeof(int32_t));
    if (!ids.empty()) std::memcpy(ids.data(), record.data(), record.size());
    const std::string text = tokenizer->decode(ids, mode == "decode_skip");
    append_record(output, text.data(), text.size(), 1);
  }
  std::cerr << static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::cout << output;
  return kExitDone;
}

}  // namespace
}  // namespace moetron

int main(int argc, char** argv) {
  const bool is_speed = argc == 7 && std::string_view(argv[2]) == "speed";
  if (argc != 3 && !is_speed) {
    std::cerr << "usage: tokenizer_tool PATH encode|encode_special|decode|decode_skip|tokens, or\n"
                 "tokenizer_tool PATH speed TEXTS THREADS TIMES IDS\n";
    return moetron::kExitConfig;
  }
  try {
    if (is_speed) return moetron::measure_speed(argv[1], {argv + 3, argv + argc});
    return moetron::run(argv[1], argv[2]);
  } catch (const moetron::Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  }
}
