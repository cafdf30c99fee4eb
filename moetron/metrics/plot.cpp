#include "moetron/metrics/plot.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

extern char** environ;

namespace moetron {
namespace {

namespace fs = std::filesystem;

// A folder of our own for script, data and picture: no name of the user's enters the script.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "moetron-plot-XXXXXX").string();
    MT_CHECK_CONFIG(::mkdtemp(name.data()) != nullptr, "cannot make the folder ", name, ": ",
                    std::strerror(errno));
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// Runs `gnuplot script` in the folder; its complaints go to the file `log` there.
void run_gnuplot(const fs::path& folder, const fs::path& picture) {
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
  const int error = ::posix_spawnp(&child, program, &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  MT_CHECK_CONFIG(error != ENOENT, "cannot draw ", picture.string(),
                  ": gnuplot is missing (Debian package gnuplot-nox)");
  MT_CHECK_CONFIG(error == 0, "cannot run gnuplot: ", std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  std::string log = read_file(folder / "log");
  std::replace(log.begin(), log.end(), '\n', ' ');
  throw ConfigError(concat("cannot draw ", picture.string(), ": gnuplot failed: ", log));
}

// Mean over a centred window of about a fiftieth of the run: narrower at the start, where the loss
// falls steeply, and cut off at the end.
std::vector<double> running_mean(const std::vector<double>& values) {
  const size_t half = values.size() / 100 + 1;
  std::vector<double> sums(values.size() + 1, 0.0);
  for (size_t i = 0; i < values.size(); ++i) sums[i + 1] = sums[i] + values[i];
  std::vector<double> means(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t before = std::min(half, i);
    const size_t after = std::min(before, values.size() - 1 - i);
    means[i] = (sums[i + after + 1] - sums[i - before]) / static_cast<double>(before + after + 1);
  }
  return means;
}

std::string data_line(int64_t step, double first, double second) {
  char line[96];
  std::snprintf(line, sizeof(line), "%lld %.9g %.9g\n", static_cast<long long>(step), first,
                second);
  return line;
}

// Within a gnuplot string in single quotes only the quote itself is special.
std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) continue;
    result += c;
    if (c == '\'') result += c;
  }
  return result + "'";
}

// What the axes span.
struct Extent {
  int64_t first_step = std::numeric_limits<int64_t>::max();
  int64_t last_step = std::numeric_limits<int64_t>::min();
  double lowest = std::numeric_limits<double>::infinity();
  double highest = -std::numeric_limits<double>::infinity();

  void include(int64_t step, double loss) {
    first_step = std::min(first_step, step);
    last_step = std::max(last_step, step);
    lowest = std::min(lowest, loss);
    highest = std::max(highest, loss);
  }
};

// A run falls steeply and then for long by little: on a logarithmic axis both are seen.
std::string axes_text(const Extent& extent) {
  const bool logarithmic = extent.lowest > 0.0 && extent.highest > 2.0 * extent.lowest;
  const double margin = 0.05 * std::max(extent.highest - extent.lowest, 0.01);
  const double low = logarithmic ? extent.lowest * 0.96 : extent.lowest - margin;
  const double high = logarithmic ? extent.highest * 1.04 : extent.highest + margin;
  char ranges[160];
  std::snprintf(ranges, sizeof(ranges), "set xrange [%lld:%lld]\nset yrange [%.9g:%.9g]\n",
                static_cast<long long>(extent.first_step - (extent.first_step == 1 ? 1 : 0)),
                static_cast<long long>(std::max(extent.last_step, extent.first_step + 1)), low,
                high);
  std::string text = ranges;
  text += logarithmic
              ? "set logscale y\nset ytics (0.001,0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.3,0.5,"
                "0.7,1,1.5,2,2.5,3,4,5,6,8,10,12,15,20,30,50,100,200,500,1000)\n"
                "set ylabel 'loss (nats per token), logarithmic'\n"
              : "set ylabel 'loss (nats per token)'\n";
  return text;
}

std::string script_text(bool png, bool has_validation, const Extent& extent,
                        const std::string& title) {
  std::string script =
      png ? "set terminal pngcairo noenhanced size 1600,900 font 'Sans,20' linewidth 2\n"
          : "set terminal svg noenhanced size 1000,560 dynamic font 'Sans,14' background 'white'\n";
  script += "set output 'picture'\nset decimalsign '.'\nset title " + quoted(title) + "\n";
  script += "set xlabel 'step'\nset format x '%.0f'\n" + axes_text(extent);
  script +=
      "set border 3 linecolor rgb '#606060'\nset tics nomirror out textcolor rgb '#303030'\n"
      "set grid linecolor rgb '#e0e0e0' linetype 1 linewidth 0.5\n"
      "set key top right Left reverse samplen 2 opaque\nset rmargin 4\n"
      "plot 'train' using 1:2 with lines linecolor rgb '#a9c9e8' linewidth 1 title 'training',"
      " '' using 1:3 with lines linecolor rgb '#1f5f9f' linewidth 2 title 'running mean'";
  if (has_validation)
    script +=
        ", 'validation' using 1:2 with linespoints linecolor rgb '#d9541e' linewidth 2"
        " pointtype 7 pointsize 0.9 title 'validation'";
  return script + "\n";
}

}  // namespace

void plot_losses(const std::vector<StepRecord>& records, const fs::path& path,
                 const std::string& title) {
  const std::string kind = path.extension().string();
  MT_CHECK_CONFIG(kind == ".png" || kind == ".svg", "cannot draw ", path.string(),
                  ": the name must end in .png or .svg");
  std::vector<int64_t> steps;
  std::vector<double> losses;
  std::string validation;
  Extent extent;
  for (const StepRecord& record : records) {
    if (std::isfinite(record.loss)) {
      steps.push_back(record.step);
      losses.push_back(record.loss);
      extent.include(record.step, record.loss);
    }
    if (record.validation_loss && std::isfinite(*record.validation_loss)) {
      validation += data_line(record.step, *record.validation_loss, 0.0);
      extent.include(record.step, *record.validation_loss);
    }
  }
  MT_CHECK_CONFIG(!steps.empty(), "cannot draw ", path.string(), ": there is no finite loss");
  const std::vector<double> means = running_mean(losses);
  std::string train;
  for (size_t i = 0; i < steps.size(); ++i) train += data_line(steps[i], losses[i], means[i]);

  const TemporaryFolder folder;
  write_file(folder.path() / "train", train);
  if (!validation.empty()) write_file(folder.path() / "validation", validation);
  write_file(folder.path() / "script",
             script_text(kind == ".png", !validation.empty(), extent, title));
  run_gnuplot(folder.path(), path);
  write_file(path, read_file(folder.path() / "picture"));
}

}  // namespace moetron
