// The cleaning of web text that `moetron preprocess --clean` does. docs/preprocess.md has the
// rules.
#pragma once

#include <string>
#include <string_view>

namespace moetron {

// Of valid UTF-8, and valid UTF-8 again; cleaning twice changes nothing more. In this order:
//   line ends (CRLF, CR, NEL, U+2028, U+2029) become LF; other control characters but the tab,
//     soft hyphens, zero-width spaces, word joiners, byte order marks and U+FFFD go;
//   addresses (http, https and ftp, up to a blank, a character beyond ASCII, or one of "<>) go;
//   blanks in a row (spaces, tabs, no-break, ideographic and typographic spaces) become one space,
//     and those at a line's beginning and end go;
//   empty lines in a row become one, and those at the beginning and the end go.
std::string clean_text(std::string_view text);

}  // namespace moetron
