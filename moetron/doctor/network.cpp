#include "moetron/doctor/network.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;

constexpr const char* kNameCure =
    "add the name to /etc/hosts or to the name server, or use the machine's address";

// A question to the name server, which the system's thread may still work on when we leave: then it
// is left to it.
struct Question {
  std::string name, port;
  addrinfo hints{};
  gaicb request{};
};

struct Answer {
  int error = 0;  // as getaddrinfo() has it
  std::vector<sockaddr_storage> addresses;
  std::vector<socklen_t> lengths;
};

Answer resolve(const std::string& name, int port, milliseconds limit) {
  auto question = std::make_unique<Question>();
  question->name = name;
  question->port = std::to_string(port);
  question->hints.ai_socktype = SOCK_STREAM;
  question->request.ar_name = question->name.c_str();
  question->request.ar_service = question->port.c_str();
  question->request.ar_request = &question->hints;
  std::array<gaicb*, 1> list{&question->request};
  Answer answer;
  answer.error = ::getaddrinfo_a(GAI_NOWAIT, list.data(), 1, nullptr);
  if (answer.error != 0) return answer;
  const auto end = std::chrono::steady_clock::now() + limit;
  while (::gai_error(&question->request) == EAI_INPROGRESS) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now()).count();
    if (left <= 0) break;
    const timespec time{left / 1000, left % 1000 * 1000000};
    ::gai_suspend(list.data(), 1, &time);
  }
  answer.error = ::gai_error(&question->request);
  if (answer.error == EAI_INPROGRESS && ::gai_cancel(&question->request) != EAI_CANCELED)
    static_cast<void>(question.release());
  if (answer.error != 0) return answer;
  for (const addrinfo* one = question->request.ar_result; one != nullptr; one = one->ai_next) {
    sockaddr_storage address{};
    std::memcpy(&address, one->ai_addr, one->ai_addrlen);
    answer.addresses.push_back(address);
    answer.lengths.push_back(one->ai_addrlen);
  }
  ::freeaddrinfo(question->request.ar_result);
  return answer;
}

std::string why_unknown(const Answer& answer, milliseconds limit) {
  if (answer.error == EAI_INPROGRESS)
    return concat("no name server answered within ", limit.count(), " ms");
  return ::gai_strerror(answer.error);
}

// 0: somebody listens there; else the system's reason why not.
int try_to_connect(const sockaddr_storage& address, socklen_t length, milliseconds limit) {
  const int fd = ::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  int error = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd wait{fd, POLLOUT, 0};
    socklen_t size = sizeof(error);
    if (::poll(&wait, 1, static_cast<int>(limit.count())) <= 0)
      error = ETIMEDOUT;
    else
      ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  ::close(fd);
  return error;
}

}  // namespace

Check check_host_name(const std::string& name, milliseconds limit) {
  const Answer answer = resolve(name, 0, limit);
  if (answer.error == 0) return ok("own name", name + " resolves");
  return warn("own name", concat(name, ": ", why_unknown(answer, limit)), kNameCure);
}

Check check_meeting_place(const std::string& address, int port, milliseconds limit) {
  const std::string place = concat(address, " port ", port);
  const Answer answer = resolve(address, port, limit);
  if (answer.error != 0)
    return fail("meeting place", concat(place, ": ", why_unknown(answer, limit)),
                "set MASTER_ADDR to a name or address that this machine knows");
  int error = EHOSTUNREACH;
  for (size_t i = 0; i < answer.addresses.size(); ++i) {
    error = try_to_connect(answer.addresses[i], answer.lengths[i], limit);
    if (error == 0) return ok("meeting place", place + " answers");
    if (error == ECONNREFUSED)
      return ok("meeting place", place + " is reached; nobody listens there yet");
  }
  return fail("meeting place", concat(place, ": ", std::strerror(error)),
              "open the port between the machines, or set MASTER_ADDR and MASTER_PORT to what they "
              "reach");
}

}  // namespace moetron
