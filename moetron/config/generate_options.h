// The options of generate and chat.
#pragma once

#include <cstdint>
#include <string>

namespace moetron {

struct GenerateOptions {
  std::string prompt;
  std::string prompt_file;
  std::string messages;  // file
  std::string system;
  int64_t max_new_tokens = 128;
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 0;  // 0: all
  double repetition_penalty = 1.0;
  int64_t num_samples = 1;  // of a prompt
  int64_t batch_size = 1;   // texts at once
  bool greedy = false;
};

}  // namespace moetron
