#include "moetron/cli/commands.h"

#include "moetron/base/log.h"

namespace moetron {

bool has_ranks(Command command) {
  return command == Command::kPretrain || command == Command::kSft ||
         command == Command::kGenerate || command == Command::kChat;
}

void say_notices(const ParsedCommandLine& parsed) {
  for (const std::string& notice : parsed.notices) log_info(notice);
}

}  // namespace moetron
