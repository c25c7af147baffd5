#include "ringway/device/port/pcap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstring>
#include <mutex>
#include <vector>

#include "ringway/base/log.h"
#include "ringway/base/unique_fd.h"
#include "ringway/device/port/offload.h"
#include "ringway/device/port/rate_limit.h"

namespace ringway::port {
namespace {

// "PCAP Capture File Format". In the byte order of whoever wrote it.
constexpr uint32_t magic_microseconds = 0xa1b2c3d4;
constexpr uint32_t magic_nanoseconds = 0xa1b23c4d;
constexpr uint32_t linktype_ethernet = 1;
struct FileHeader {
  uint32_t magic = magic_nanoseconds;
  uint16_t major = 2;
  uint16_t minor = 4;
  uint32_t reserved[2] = {0, 0};
  uint32_t snap = 0;
  uint32_t linktype = linktype_ethernet;
};
static_assert(sizeof(FileHeader) == 24);
struct Record {
  uint32_t seconds = 0;
  uint32_t nanoseconds = 0;
  uint32_t captured = 0;  // bytes
  uint32_t length = 0;    // bytes, of the frame
};
static_assert(sizeof(Record) == 16);

constexpr size_t buffer_bytes = size_t{256} << 10;
constexpr size_t frames_a_turn = 64;
constexpr uint64_t max_replay = uint64_t{1} << 30;  // bytes of a file that is held in memory

Record record_of(uint32_t captured, uint32_t length) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return {.seconds = static_cast<uint32_t>(now.tv_sec),
          .nanoseconds = static_cast<uint32_t>(now.tv_nsec),
          .captured = captured,
          .length = length};
}

// The file that all queues write to. Any thread. A disk that is full is told once, and what it did not take
// is counted.
class Capture {
 public:
  Capture(UniqueFd fd, uint32_t snap) : fd_(std::move(fd)), snap_(snap) { buffer_.reserve(buffer_bytes); }
  ~Capture() { flush(); }

  Result<> begin() {
    const FileHeader header{.snap = snap_};
    if (::write(fd_.get(), &header, sizeof header) != sizeof header)
      return os_failure("cannot write to the capture");
    end_ = sizeof header;
    return {};
  }
  void add(std::span<const std::byte> frame) {
    const std::scoped_lock lock(mutex_);
    const auto captured = static_cast<uint32_t>(std::min<size_t>(frame.size(), snap_));
    const Record record = record_of(captured, static_cast<uint32_t>(frame.size()));
    if (buffer_.size() + sizeof record + captured > buffer_bytes) write_out();
    append(&record, sizeof record);
    append(frame.data(), captured);
    ++buffered_;
  }
  void flush() {
    const std::scoped_lock lock(mutex_);
    write_out();
  }
  [[nodiscard]] std::vector<Counter> counters() const {
    return {{"pcap: frames written", written_.load()},
            {"pcap: frames lost, the disk did not take them", lost_.load()}};
  }

 private:
  void append(const void* from, size_t length) {
    const auto* bytes = static_cast<const std::byte*>(from);
    buffer_.insert(buffer_.end(), bytes, bytes + length);
  }
  // A file always ends with a whole record: what was written in part is taken back.
  void write_out() {
    if (buffer_.empty()) return;
    const ssize_t length = ::pwrite(fd_.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(end_));
    const bool all = length == static_cast<ssize_t>(buffer_.size());
    (all ? written_ : lost_) += buffered_;
    if (all) {
      end_ += buffer_.size();
    } else {
      log_.warning("a capture is not complete: {}", length < 0 ? std::strerror(errno) : "the disk is full");
      (void)!::ftruncate(fd_.get(), static_cast<off_t>(end_));
    }
    buffer_.clear();
    buffered_ = 0;
  }

  const UniqueFd fd_;
  const uint32_t snap_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::byte> buffer_;
  uint64_t buffered_ = 0;  // frames
  uint64_t end_ = 0;       // of whole records, in bytes
  std::atomic<uint64_t> written_ = 0;
  std::atomic<uint64_t> lost_ = 0;
  log::Limited log_{1};
};

// A capture that was read; the frames of it are found and checked at the start.
struct Recording {
  std::vector<std::byte> bytes;
  std::vector<std::span<const std::byte>> frames;
};

Result<std::vector<std::byte>> read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status{};
  if (!fd || ::fstat(fd.get(), &status) != 0) return os_failure("cannot open the capture to play");
  if (!S_ISREG(status.st_mode)) return refused("what is to be played is no regular file");
  if (static_cast<uint64_t>(status.st_size) > max_replay)
    return refused("a capture to play is 1 GiB at most");
  std::vector<std::byte> bytes(static_cast<size_t>(status.st_size));
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t length = ::read(fd.get(), &bytes[at], bytes.size() - at);
    if (length <= 0) return os_failure("cannot read the capture to play", length == 0 ? EIO : errno);
    at += static_cast<size_t>(length);
  }
  return bytes;
}

Result<Recording> parse_recording(std::vector<std::byte> bytes) {
  Recording recording{.bytes = std::move(bytes), .frames = {}};
  const std::span<const std::byte> all(recording.bytes);
  if (all.size() < sizeof(FileHeader)) return refused("this is no pcap file");
  const auto header = peek<FileHeader>(all.data());
  const auto is_magic = [](uint32_t magic) {
    return magic == magic_microseconds || magic == magic_nanoseconds;
  };
  const bool is_swapped = is_magic(std::byteswap(header.magic));
  if (!is_swapped && !is_magic(header.magic)) return refused("this is no pcap file");
  const auto number = [is_swapped](uint32_t value) { return is_swapped ? std::byteswap(value) : value; };
  if ((number(header.linktype) & 0xffff) != linktype_ethernet)
    return refused("the capture is not of Ethernet");
  for (auto rest = all.subspan(sizeof header); rest.size() >= sizeof(Record);) {
    const size_t captured = number(peek<Record>(rest.data()).captured);
    rest = rest.subspan(sizeof(Record));
    if (captured > rest.size()) break;  // the last record is not all there
    if (captured >= min_frame && captured <= max_frame) recording.frames.push_back(rest.first(captured));
    rest = rest.subspan(captured);
  }
  if (recording.frames.empty()) return refused("the capture has no frames");
  return recording;
}

class PcapPort final : public Port {
 public:
  PcapPort(std::unique_ptr<Capture> capture, Recording recording, const PcapOptions& options)
      : capture_(std::move(capture)),
        recording_(std::move(recording)),
        again_(options.again),
        rate_(options.rate, 1) {}

  [[nodiscard]] const Abilities& abilities() const override { return abilities_; }
  std::unique_ptr<Outlet> open_outlet(loop::Loop&, uint16_t) override { return std::make_unique<Out>(*this); }
  std::unique_ptr<Inlet> open_inlet(loop::Loop& loop, uint16_t, Receiver& receiver) override {
    return std::make_unique<In>(*this, loop, receiver);
  }
  [[nodiscard]] std::vector<Counter> counters() const override {
    std::vector<Counter> counters;
    if (capture_) counters = capture_->counters();
    if (!recording_.frames.empty()) counters.push_back({"pcap: frames played", played_.load()});
    return counters;
  }

 private:
  class Out final : public Outlet {
   public:
    explicit Out(PcapPort& port) : port_(port), bytes_(max_frame) {}
    ~Out() override { Out::flush(); }
    Sent send(Frame& frame) override {
      if (!port_.capture_) return Sent::done;
      copy_frame(frame, bytes_.data());
      port_.capture_->add(std::span(bytes_).first(frame.length));
      return Sent::done;
    }
    void flush() override {
      if (port_.capture_) port_.capture_->flush();
    }

   private:
    PcapPort& port_;
    std::vector<std::byte> bytes_;
  };

  // Plays the recording; where it has got to is the port's, so it goes on when the queue starts again.
  class In final : public Inlet, private loop::Source {
   public:
    In(PcapPort& port, loop::Loop& loop, Receiver& receiver) : port_(port), loop_(loop), receiver_(receiver) {
      loop_.add(*this);
    }
    ~In() override {
      loop_.cancel(timer_);
      loop_.remove(*this);
    }
    void resume() override { loop_.wake(*this); }

   private:
    bool poll() override {
      size_t count = 0;
      while (count < frames_a_turn && port_.has_next() && play()) ++count;
      return count > 0;
    }
    bool play() {
      const auto now = std::chrono::steady_clock::now().time_since_epoch();
      const auto bytes = port_.recording_.frames[port_.next_];
      Frame frame{.length = static_cast<uint32_t>(bytes.size())};
      const iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
      frame.pieces = {&piece, 1};
      starved_ = false;
      if (!port_.rate_.take(static_cast<uint64_t>(std::chrono::nanoseconds(now).count()), 1)) return false;
      starved_ = !receiver_.deliver(frame);
      if (!starved_) port_.move_on();
      return !starved_;
    }
    bool park() override {
      if (!starved_ && port_.has_next() && timer_ == 0) {
        timer_ = loop_.after(std::chrono::milliseconds(1), [this] {
          timer_ = 0;
          loop_.wake(*this);
        });
      }
      return true;
    }
    void unpark() override {}

    PcapPort& port_;
    loop::Loop& loop_;
    Receiver& receiver_;
    bool starved_ = false;
    uint64_t timer_ = 0;
  };

  [[nodiscard]] bool has_next() const { return next_ < recording_.frames.size(); }
  void move_on() {
    ++played_;
    if (++next_ == recording_.frames.size() && again_) next_ = 0;
  }

  const Abilities abilities_{};
  const std::unique_ptr<Capture> capture_;
  const Recording recording_;  // without frames: nothing is played
  const bool again_;
  RateLimit rate_;
  size_t next_ = 0;  // frame to play
  std::atomic<uint64_t> played_ = 0;
};

}  // namespace

Result<std::unique_ptr<Port>> open_pcap(const PcapOptions& options) {
  std::unique_ptr<Capture> capture;
  if (!options.write.empty()) {
    UniqueFd fd(::open(options.write.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd) return os_failure("cannot make the capture");
    capture = std::make_unique<Capture>(std::move(fd), options.snap);
    TRY(capture->begin());
  }
  Recording recording;
  if (!options.read.empty()) recording = TRY(parse_recording(TRY(read_file(options.read))));
  return std::make_unique<PcapPort>(std::move(capture), std::move(recording), options);
}

}  // namespace ringway::port
