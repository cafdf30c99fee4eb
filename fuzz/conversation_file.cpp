// Files of conversations, packed or not.
#include "moetron/chat/conversation_file.h"

#include "fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  write_input("a.json", text_of(data, size));
  return read_or_refuse([&] {
    for_each_record(fuzz_folder() / "a.json",
                    [](const RawRecord& record) { return record.number < 1000; });
  });
}
