// Words of a command line, cut into options with their values.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "moetron/config/option_value.h"

namespace moetron {

// One option as it was written, or a word that belongs to none.
struct ReadArgument {
  size_t begin = 0;  // its words are [begin, end)
  size_t end = 0;
  std::string shown;               // the option without its values, or the word
  std::optional<Setting> setting;  // empty: the table does not know it
  std::string mistake;             // empty: none; of what is not known, too
};

class ArgumentReader {
 public:
  // `command`: whose options the words are; where it has none of a name, that of another is read.
  ArgumentReader(Command command, std::vector<std::string> words)
      : command_(command), words_(std::move(words)) {}

  bool at_end() const { return next_ == words_.size(); }
  const std::vector<std::string>& words() const { return words_; }
  ReadArgument next();
  // All that is left, as it stands.
  std::vector<std::string> rest();

 private:
  std::vector<Scalar> read_values(const OptionSpec& spec);

  Command command_;
  std::vector<std::string> words_;
  size_t next_ = 0;
};

bool is_option(const std::string& word);

}  // namespace moetron
