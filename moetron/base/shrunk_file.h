// A mapped file that another process cuts short: the system answers a read beyond the new end with
// SIGBUS, wherever in the program it happens.
#pragma once

namespace moetron {

// From here on such a read ends the process with one sentence that names the file, and exit code 3.
// Other SIGBUS do what they did before.
void report_shrunk_files();

}  // namespace moetron
