// benchmarks/published_table.md, written from predictions: its text, and every figure as the
// program counts it now. For a test, which compares the page with it.
#pragma once

#include <string>

namespace moetron {

// Takes seconds: some thirty predictions. Reads configs/published and configs/hardware.
std::string published_table_page();

}  // namespace moetron
