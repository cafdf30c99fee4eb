// moetron demo: runs the script of the installation, or of the checkout, that this program is of.
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/cli/commands.h"

namespace moetron {

int run_demo(const ParsedCommandLine&) {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  const std::filesystem::path folder = program.parent_path();
  const std::filesystem::path home = folder.parent_path() / "share" / "moetron";
  const std::filesystem::path checkout = folder.parent_path().parent_path();  // of build/cpu
  for (const auto& place : {home, checkout}) {
    const std::filesystem::path script = place / "scripts" / "demo.sh";
    if (!path_exists(script)) continue;
    ::setenv("MOETRON", program.c_str(), /*overwrite=*/1);
    ::execl("/bin/bash", "bash", script.c_str(), nullptr);
    throw ConfigError(concat("demo: cannot run /bin/bash: ", std::strerror(errno)));
  }
  throw ConfigError(concat("demo: there is no ", (home / "scripts" / "demo.sh").string(),
                           ": the program was moved without the files it came with"));
}

}  // namespace moetron
