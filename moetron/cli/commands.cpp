#include "moetron/cli/commands.h"

#include "moetron/base/log.h"

namespace moetron {

void say_notices(const ParsedCommandLine& parsed) {
  for (const std::string& notice : parsed.notices) log_info(notice);
}

}  // namespace moetron
