// Chat templates: the input is a template, which is parsed and renders a short conversation.
#include "moetron/chat/chat_template.h"

#include "fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moetron;
  return read_or_refuse([&] {
    static const Json kMessages = {
        {{"role", "user"}, {"content", "a <b> \u00e9"}},
        {{"role", "assistant"}, {"content", "c"}, {"tool_calls", Json::array({{{"id", 1}}})}}};
    static const Json kTools = Json::array({{{"name", "f"}}});
    ChatTemplate::from_text(text_of(data, size), "input")
        ->render(kMessages, kTools, {.add_generation_prompt = true});
  });
}
