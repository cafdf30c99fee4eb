// The test program of tests/oracles/tokenizer_oracle.py:
//   tokenizer_tool PATH encode|encode_special < texts > ids
//   tokenizer_tool PATH decode|decode_skip < ids > texts
//   tokenizer_tool PATH tokens > "VOCAB_SIZE BOS EOS", -1 for a token that there is not
// PATH is a tokenizer.json, its folder, or "bytes". Each text is a uint32 of bytes and the bytes;
// each list of ids is a uint32 of ids and the int32 ids, all little-endian. The processor
// time of the work alone, in seconds, goes to stderr.
#include <cstdint>
#include <cstring>
#include <ctime>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/base/error.h"
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
  if (argc != 3) {
    std::cerr << "usage: tokenizer_tool PATH encode|encode_special|decode|decode_skip|tokens\n";
    return moetron::kExitConfig;
  }
  try {
    return moetron::run(argv[1], argv[2]);
  } catch (const moetron::Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  }
}
