#include "moetron/base/shrunk_file.h"

#include <csignal>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Everything below runs in a signal handler: no allocation, no locks, no buffers of stdio.

// One line of /proc/self/maps after the other, cut where it is longer than the buffer.
class MapLines {
 public:
  explicit MapLines(int fd) : fd_(fd) {}

  bool next(std::string_view& line) {
    size_t length = 0;
    char c = 0;
    while (::read(fd_, &c, 1) == 1 && c != '\n')
      if (length < sizeof line_) line_[length++] = c;
    line = {line_, length};
    return length > 0;
  }

 private:
  int fd_;
  char line_[4352];  // an address range, and a path of PATH_MAX bytes
};

uintptr_t take_hex(std::string_view& text) {
  uintptr_t value = 0;
  for (; !text.empty(); text.remove_prefix(1)) {
    const char c = text.front();
    if (c >= '0' && c <= '9')
      value = value * 16 + static_cast<uintptr_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      value = value * 16 + static_cast<uintptr_t>(c - 'a' + 10);
    else
      break;
  }
  return value;
}

void say(std::string_view text) {
  // Where even that fails, nothing is left to say it with.
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
}

// "7f00-7f80 r--s 00000000 08:01 4711   /a/path"
void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  MapLines lines(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  for (std::string_view line; lines.next(line);) {
    std::string_view range = line;
    const uintptr_t begin = take_hex(range);
    range.remove_prefix(range.empty() ? 0 : 1);
    if (address < begin || address >= take_hex(range)) continue;
    const size_t path = line.find('/');
    if (path == std::string_view::npos) break;
    say("moetron: ");
    say(line.substr(path));
    say(" was cut short while it was read\n");
    ::_exit(kExitCorruptInput);
  }
  ::signal(signal, SIG_DFL);  // the instruction runs again, and ends the process
}

}  // namespace

void report_shrunk_files() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace moetron
