#include "moetron/metrics/gnuplot.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <spawn.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/base/temporary_folder.h"

extern char** environ;

namespace moetron {
namespace {

namespace fs = std::filesystem;

// The status of a child, which leads a process group, when it has ended; nothing where it had to be
// killed, with what it started, after the limit.
std::optional<int> wait_within(pid_t child, std::chrono::milliseconds limit) {
  constexpr std::chrono::milliseconds kPause{10};
  const auto deadline = std::chrono::steady_clock::now() + limit;
  int status = 0;
  while (true) {
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    if (ended == child) return status;
    if (ended < 0 && errno != EINTR) return status;
    if (std::chrono::steady_clock::now() > deadline) break;
    std::this_thread::sleep_for(kPause);
  }
  ::kill(-child, SIGKILL);
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return std::nullopt;
}

// Runs `gnuplot script` in the folder; its complaints go to the file `log` there.
void run_gnuplot(const fs::path& folder, const fs::path& picture, std::chrono::milliseconds limit) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "log", O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  char program[] = "gnuplot";
  char script[] = "script";
  char* arguments[] = {program, script, nullptr};
  pid_t child = 0;
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  const int error = ::posix_spawnp(&child, program, &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  MT_CHECK_CONFIG(error != ENOENT, "cannot draw ", picture.string(),
                  ": gnuplot is missing (Debian package gnuplot-nox)");
  MT_CHECK_CONFIG(error == 0, "cannot run gnuplot: ", std::strerror(error));
  const std::optional<int> status = wait_within(child, limit);
  MT_CHECK_CONFIG(status, "cannot draw ", picture.string(), ": gnuplot was not done after ",
                  limit.count(), " ms");
  if (WIFEXITED(*status) && WEXITSTATUS(*status) == 0) return;
  std::string log = read_file(folder / "log");
  std::replace(log.begin(), log.end(), '\n', ' ');
  throw ConfigError(concat("cannot draw ", picture.string(), ": gnuplot failed: ", log));
}

std::string terminal(bool is_png, const PictureSize& size) {
  if (is_png)
    return concat("set terminal pngcairo noenhanced size ", size.width * 8 / 5, ",",
                  size.height * 8 / 5, " font 'Sans,17' linewidth 1.6\ntext = 17\n");
  return concat("set terminal svg noenhanced size ", size.width, ",", size.height,
                " dynamic font 'Sans,14' background 'white'\ntext = 14\n");
}

}  // namespace

void check_picture_name(const fs::path& path) {
  const std::string kind = path.extension().string();
  MT_CHECK_CONFIG(kind == ".png" || kind == ".svg", "cannot draw ", path.string(),
                  ": the name must end in .png or .svg");
}

void draw_with_gnuplot(const fs::path& path, const PictureSize& size, const std::string& script,
                       const std::vector<PlotData>& data, std::chrono::milliseconds limit) {
  check_picture_name(path);
  const TemporaryFolder folder("plot");  // no name of the user's enters the script
  for (const PlotData& file : data) write_file(folder.path() / file.name, file.text);
  write_file(folder.path() / "script", terminal(path.extension() == ".png", size) +
                                           "set output 'picture'\nset decimalsign '.'\n" + script);
  run_gnuplot(folder.path(), path, limit);
  MT_CHECK_CONFIG(path_exists(folder.path() / "picture"), "cannot draw ", path.string(),
                  ": gnuplot made no picture");
  write_file(path, read_file(folder.path() / "picture"));
}

std::string gnuplot_quoted(std::string_view text) {
  // Within single quotes only the quote itself is special.
  std::string result = "'";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) continue;
    result += c;
    if (c == '\'') result += c;
  }
  return result + "'";
}

std::string gnuplot_colour(int colour) {
  char text[12];
  std::snprintf(text, sizeof(text), "'#%06x'", static_cast<unsigned>(colour));
  return text;
}

}  // namespace moetron
