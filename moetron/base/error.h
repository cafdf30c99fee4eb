// The kinds of failure, and the checks that raise them (DESIGN: "Failure").
// A message names the option or file and both values: "expert-model-parallel-size (12) must divide
// num-experts (128)". Checks join their arguments with operator<<: no format library in headers,
// for libtorch brings its own.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace moetron {

// Exit codes that a launcher or a script may act on.
enum ExitCode : int {
  kExitDone = 0,
  kExitInternal = 1,       // ours, or a peer's failure: a restart may help
  kExitConfig = 2,         // the user's options: never restart
  kExitCorruptInput = 3,   // a file that cannot be read as what it should be
  kExitStopped = 75,       // stopped on request, after saving (0 under torchrun)
  kExitDoNotRestart = 93,  // a restart would fail in the same way
};

class Error : public std::runtime_error {
 public:
  Error(int exit_code, const std::string& message);
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

// The user's mistake: an option, or a combination of options.
class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message);
};

// The user's file is missing, cut short, or holds what it should not.
class InputError : public Error {
 public:
  explicit InputError(const std::string& message);
};

// Ours: a broken invariant.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message);
};

template <class... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// The part of an exception's message that is for people: libtorch appends a stack trace, Gloo
// starts with a place in its sources.
std::string first_line(const std::exception& error);

[[noreturn]] void throw_internal_error(const char* condition, const char* file, int line,
                                       const std::string& message);

}  // namespace moetron

// MT_CHECK(rows == tokens, "rows (", rows, ") differ from tokens (", tokens, ")");
#define MT_CHECK(condition, ...)                                       \
  do {                                                                 \
    if (!(condition)) [[unlikely]]                                     \
      ::moetron::throw_internal_error(#condition, __FILE__, __LINE__,  \
                                      ::moetron::concat(__VA_ARGS__)); \
  } while (0)

#define MT_CHECK_CONFIG(condition, ...)                             \
  do {                                                              \
    if (!(condition)) [[unlikely]]                                  \
      throw ::moetron::ConfigError(::moetron::concat(__VA_ARGS__)); \
  } while (0)

#define MT_CHECK_INPUT(condition, ...)                             \
  do {                                                             \
    if (!(condition)) [[unlikely]]                                 \
      throw ::moetron::InputError(::moetron::concat(__VA_ARGS__)); \
  } while (0)
