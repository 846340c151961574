// The only file that knows Node-API: takes arguments apart, calls the core, puts the Result together.
//
// Every open handle that JavaScript has not given away lies in the Addon of its environment, known to JavaScript by its
// number alone. So nothing is closed by garbage collection, nothing twice, no number that is not ours, and all of it
// when the environment ends: a worker that is terminated lets go of its ports first, then of its locks, last one first.

#include <errno.h>
#include <napi.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "file_lock.h"
#include "filesystem.h"
#include "handle_wait.h"
#include "inherited.h"
#include "listener.h"
#include "local_socket.h"
#include "lock_wait.h"
#include "notify.h"
#include "port_sockets.h"
#include "process.h"
#include "process_handle.h"
#include "sent_signals.h"

namespace gateway_lock {
namespace {

// By number, because a process may have ten thousand of them; the last one first where all are meant.
template <HandleKind kKind>
class Registry {
 public:
  struct Entry {
    Handle<kKind> handle;
    std::uint64_t turn;
    std::string doomed;  // the path of a lock file that goes with its lock, also when the process ends without saying so
  };

  Registry() = default;
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  ~Registry() { CloseAll(); }

  void CloseAll() {
    for (Entry* entry : FromLast()) entry->handle.Reset();
    entries_.clear();
  }

  double Keep(Handle<kKind> handle) {
    const RawHandle raw = handle.raw();
    // Somebody has closed it behind our back, or the system would not have given us its number again: it is not ours to close any
    // more.
    if (Entry* const stale = FindEntry(raw); stale != nullptr) stale->handle.Take();
    entries_.insert_or_assign(raw, Entry{std::move(handle), turns_++, {}});
    return static_cast<double>(raw);
  }
  // Null for a number that is not in here: closed already, or never ours.
  Entry* FindEntry(RawHandle raw) {
    const auto found = entries_.find(raw);
    return found == entries_.end() ? nullptr : &found->second;
  }
  Handle<kKind>* Find(RawHandle raw) {
    Entry* const entry = FindEntry(raw);
    return entry == nullptr ? nullptr : &entry->handle;
  }
  // Empty where Find finds nothing.
  Handle<kKind> Take(RawHandle raw) {
    auto node = entries_.extract(raw);
    return node.empty() ? Handle<kKind>() : std::move(node.mapped().handle);
  }
  std::vector<Entry*> FromLast() {
    std::vector<Entry*> all;
    for (auto& [raw, entry] : entries_) all.push_back(&entry);
    std::sort(all.begin(), all.end(), [](const Entry* a, const Entry* b) { return a->turn > b->turn; });
    return all;
  }

 private:
  std::unordered_map<RawHandle, Entry> entries_;
  std::uint64_t turns_ = 0;
};

struct Addon;
struct PendingWait;
void Deliver(Napi::Env env, Napi::Function, Addon* addon, PendingWait* wait);

// How the waiting threads of an environment reach its JavaScript. It keeps the event loop alive while somebody waits. What has no
// PendingWait is the end of a process, or of the waiting for a socket.
using Waker = Napi::TypedThreadSafeFunction<Addon, PendingWait, Deliver>;

struct PendingWait {
  LockWait wait;
  Napi::FunctionReference done;
  Waker waker;
};

// A process, and who wants to know of its end. Members are destroyed from the last to the first.
struct OpenedProcess {
  FileHandle handle;
  Napi::FunctionReference done;
  std::unique_ptr<HandleWait> wait;
};

// Who wants to know when something has come by a socket.
struct SocketWatch {
  Napi::FunctionReference done;
  std::unique_ptr<HandleWait> wait;
};

// How long the end of an environment or of the process waits for others.
constexpr auto kPatience = std::chrono::seconds(1);

struct Addon {
  Addon();
  ~Addon();
  Addon(const Addon&) = delete;
  Addon& operator=(const Addon&) = delete;

  // Members are destroyed from the last to the first.
  Registry<HandleKind::kFile> files;
  Registry<HandleKind::kSocket> sockets;
  std::vector<SocketCopy> copies;
  std::unordered_map<RawHandle, LocalName> names;  // of sockets in the filesystem
  std::unordered_map<RawHandle, SocketWatch> watches;
  std::unordered_map<RawHandle, std::unique_ptr<PendingWait>> waits;
  std::unordered_map<RawHandle, OpenedProcess> processes;
  Waker waker;
  std::size_t awaited = 0;  // waits and processes that `waker` is to tell of

  const FileHandle* FindFile(RawHandle raw) {
    if (const FileHandle* file = files.Find(raw); file != nullptr) return file;
    const PendingWait* pending = FindWait(raw);
    return pending == nullptr ? nullptr : &pending->wait.file();
  }
  PendingWait* FindWait(RawHandle raw) const {
    const auto found = waits.find(raw);
    return found == waits.end() ? nullptr : found->second.get();
  }
  Result<Done> OpenWaker(Napi::Env env) {
    if (static_cast<napi_threadsafe_function>(waker) != nullptr) return Done{};
    waker = Waker::New(env, "gateway-lock wait", 0, 1, this);
    // The environment is ending.
    if (static_cast<napi_threadsafe_function>(waker) == nullptr) return Failure{ECANCELED, "napi_create_threadsafe_function"};
    waker.Unref(env);
    // Hooks run in reverse order: this one before Node takes the waker away.
    env.AddCleanupHook([](Addon* ending) { ending->EndWaits(); }, this);
    return Done{};
  }
  void Await(Napi::Env env) {
    if (awaited++ == 0) waker.Ref(env);
  }
  void StopAwaiting(Napi::Env env) {
    if (--awaited == 0) waker.Unref(env);
  }
  // All at once, and then each one's end, with one deadline for all.
  void EndWaits() {
    watches.clear();
    processes.clear();
    for (const auto& [raw, pending] : waits) static_cast<void>(pending->wait.Cancel().ok());
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    for (const auto& [raw, pending] : waits) pending->wait.Abandon(deadline);
    waits.clear();
  }
  void RemoveDoomed() {
    for (const auto& [raw, name] : names) RemoveLocalName(name);
    names.clear();
    for (auto* entry : files.FromLast()) {
      if (const std::string path = std::exchange(entry->doomed, {}); !path.empty())
        static_cast<void>(RemoveLockFile(entry->handle, path).ok());
    }
  }
};

// The environments of this process, for its end: process.exit() leaves the main thread's as it is. An 'exit' listener would
// come before those of the host, which may go on writing to what the lock is there for. Never destroyed, so that it is there to
// the end.
struct Environments {
  const ProcessId process = OwnProcess();
  std::timed_mutex mutex;
  std::vector<Addon*> all;

  static Environments& Get() {
    static Environments* const environments = [] {
      std::atexit(AtExit);
      return new Environments();
    }();
    return *environments;
  }
  static void AtExit() {
    Environments& environments = Get();
    if (OwnProcess() != environments.process) return;  // forked from it: the files are not its own
    // Where the other threads are ended first, one of them may have it for ever.
    const std::unique_lock<std::timed_mutex> lock(environments.mutex, kPatience);
    if (!lock) return;
    for (Addon* addon : environments.all) addon->RemoveDoomed();
  }
};

Addon::Addon() {
  Environments& environments = Environments::Get();
  const std::lock_guard<std::timed_mutex> lock(environments.mutex);
  environments.all.push_back(this);
}

// In the order in which a gateway is closed: the port, the files, the locks.
Addon::~Addon() {
  Environments& environments = Environments::Get();
  {
    const std::lock_guard<std::timed_mutex> lock(environments.mutex);
    environments.all.erase(std::find(environments.all.begin(), environments.all.end(), this));
  }
  EndWaits();
  for (const SocketCopy& copy : copies) CloseCopy(copy);
  sockets.CloseAll();
  RemoveDoomed();
}

using Info = const Napi::CallbackInfo&;

Addon& Of(Info info) { return *info.Env().GetInstanceData<Addon>(); }

std::string Text(Info info, std::size_t index) { return info[index].As<Napi::String>().Utf8Value(); }

RawHandle Raw(Info info, std::size_t index) { return static_cast<RawHandle>(info[index].As<Napi::Number>().Int64Value()); }

bool Flag(Info info, std::size_t index) { return info[index].As<Napi::Boolean>().Value(); }

std::vector<std::int32_t> Integers(Info info, std::size_t index) {
  const auto array = info[index].As<Napi::Array>();
  std::vector<std::int32_t> integers;
  for (std::uint32_t i = 0; i < array.Length(); i++) integers.push_back(Napi::Value(array[i]).As<Napi::Number>().Int32Value());
  return integers;
}

Napi::Value FailureObject(Napi::Env env, const Failure& failure) {
  auto object = Napi::Object::New(env);
  object["errno"] = failure.code;
  object["syscall"] = failure.syscall;
  if (failure.system != 0) object["system"] = static_cast<double>(failure.system);
  return object;
}

// A caller that uses a handle after it was closed.
Napi::Value BadHandle(Napi::Env env) { return FailureObject(env, Failure{EBADF, "handle"}); }

Napi::Value VerdictValue(Napi::Env env, Verdict verdict) {
  if (verdict == Verdict::kUnknown) return env.Null();
  return Napi::Boolean::New(env, verdict == Verdict::kYes);
}

const char* Name(Hazard hazard) {
  switch (hazard) {
    case Hazard::kNone:
      return "none";
    case Hazard::kSymbolicLink:
      return "symbolic-link";
    case Hazard::kReparsePoint:
      return "reparse-point";
    case Hazard::kDirectory:
      return "directory";
    case Hazard::kNotRegular:
      return "not-regular";
    case Hazard::kHardLinks:
      return "hard-links";
    case Hazard::kForeignOwner:
      return "foreign-owner";
    case Hazard::kWritableDirectory:
      return "writable-directory";
    case Hazard::kNotDirectory:
      return "not-directory";
  }
  return "none";
}

const char* Name(LockStatus status) {
  switch (status) {
    case LockStatus::kLocked:
      return "locked";
    case LockStatus::kHeld:
      return "held";
    case LockStatus::kReplaced:
      return "replaced";
    case LockStatus::kCancelled:
      return "cancelled";
    case LockStatus::kRefused:
      return "refused";
    case LockStatus::kNotExclusive:
      return "not-exclusive";
  }
  return "none";
}

Napi::Object LockAttemptObject(Napi::Env env, const LockAttempt& attempt) {
  auto object = Napi::Object::New(env);
  object["status"] = Name(attempt.status);
  if (attempt.status == LockStatus::kLocked) object["empty"] = attempt.empty;
  if (attempt.status == LockStatus::kRefused) object["hazard"] = Name(attempt.hazard);
  return object;
}

// A held file is kept only for somebody who wants to wait for it. A lock of which nobody asks whether it is empty is a number: an
// object takes longer than all system calls but one.
Napi::Value LockAttemptResult(Info info, Result<LockAttempt> result, bool to_wait, bool plain = true) {
  if (!result.ok()) return FailureObject(info.Env(), result.failure());
  LockAttempt& attempt = result.value();
  if (attempt.status == LockStatus::kLocked && plain)
    return Napi::Number::New(info.Env(), Of(info).files.Keep(std::move(attempt.file)));
  Napi::Object object = LockAttemptObject(info.Env(), attempt);
  const bool keep = attempt.status == LockStatus::kLocked || to_wait;
  if (attempt.file && keep) object["fd"] = Of(info).files.Keep(std::move(attempt.file));
  return object;
}

// What BoundSocket and InheritedSocket have in common.
template <typename Socket>
Napi::Object AddressObject(Napi::Env env, const Socket& socket) {
  auto object = Napi::Object::New(env);
  object["address"] = socket.address;
  object["family"] = socket.ipv6 ? "IPv6" : "IPv4";
  object["port"] = socket.port;
  return object;
}

Napi::Value BoundSocketObject(Info info, Result<BoundSocket> result) {
  if (!result.ok()) return FailureObject(info.Env(), result.failure());
  Napi::Object object = AddressObject(info.Env(), result.value());
  object["fd"] = Of(info).sockets.Keep(std::move(result.value().socket));
  return object;
}

Napi::Value DoneValue(Napi::Env env, const Result<Done>& result) {
  return result.ok() ? env.Undefined() : FailureObject(env, result.failure());
}

BindRequest ReadBindRequest(Info info) {
  BindRequest request;
  request.host = Text(info, 0);
  request.port = static_cast<std::uint16_t>(info[1].As<Napi::Number>().Uint32Value());
  request.backlog = info[2].As<Napi::Number>().Int32Value();
  request.dual_stack = Flag(info, 3);
  return request;
}

// (path, selfTest, toWait): where somebody waits already, the holder does not let go in microseconds, and a thousand would ask in
// vain
Napi::Value TryLockFileCall(Info info) {
  const bool self_test = Flag(info, 1);
  const bool to_wait = Flag(info, 2);
  const bool eager = to_wait && Of(info).waits.empty();
  return LockAttemptResult(info, TryLockFile(Text(info, 0), self_test, eager), to_wait, !self_test);
}

// (path)
Napi::Value GiveDirectoryCall(Info info) { return DoneValue(info.Env(), GiveDirectory(Text(info, 0))); }

// (path, toWait)
Napi::Value TryLockDirectoryCall(Info info) { return LockAttemptResult(info, TryLockDirectory(Text(info, 0)), Flag(info, 1)); }

// One that has ended and that nobody was told of. Each sends one call of its own; where it was closed meanwhile, the call finds
// none.
void DeliverEnd(Napi::Env env, Addon& addon) {
  for (auto& [raw, process] : addon.processes) {
    if (process.wait == nullptr || !process.wait->ended()) continue;
    process.wait.reset();
    addon.StopAwaiting(env);
    const Napi::FunctionReference done = std::move(process.done);
    done.Call({});  // may close this process, and any other
    return;
  }
  for (auto watch = addon.watches.begin(); watch != addon.watches.end(); ++watch) {
    if (!watch->second.wait->ended()) continue;
    const Napi::FunctionReference done = std::move(watch->second.done);
    addon.watches.erase(watch);
    done.Call({});  // may close this socket, and wait for it again
    return;
  }
}

// Tells JavaScript what came of a wait. The file is back in `files`.
void Deliver(Napi::Env env, Napi::Function, Addon* addon, PendingWait* wait) {
  if (static_cast<napi_env>(env) == nullptr) return;  // the environment has ended, and the wait with it
  if (wait == nullptr) return DeliverEnd(env, *addon);
  if (addon->waits.empty()) return;  // they were all ended: this one is not there any more
  const std::unique_ptr<PendingWait> pending = std::move(addon->waits[wait->wait.file().raw()]);
  addon->waits.erase(wait->wait.file().raw());
  addon->StopAwaiting(env);
  FileHandle file;
  Result<LockAttempt> end = pending->wait.Finish(file);
  addon->files.Keep(std::move(file));
  if (end.ok() && end.value().status == LockStatus::kLocked) {
    // Somebody has waited for this: no object, which takes longer than all of the above.
    pending->done.Call({env.Null(), Napi::Boolean::New(env, end.value().empty)});
  } else {
    pending->done.Call({end.ok() ? LockAttemptObject(env, end.value()) : FailureObject(env, end.failure())});
  }
}

// (fd, path, selfTest, done)
Napi::Value StartWaitCall(Info info) {
  Napi::Env env = info.Env();
  Addon& addon = Of(info);
  FileHandle file = addon.files.Take(Raw(info, 0));
  if (!file) return BadHandle(env);
  if (Result<Done> opened = addon.OpenWaker(env); !opened.ok()) {
    addon.files.Keep(std::move(file));
    return FailureObject(env, opened.failure());
  }
  auto pending = std::make_unique<PendingWait>();
  pending->done = Napi::Persistent(info[3].As<Napi::Function>());
  pending->waker = addon.waker;
  const LockWait::Notify notify = [](void* context) {
    auto* ended = static_cast<PendingWait*>(context);
    ended->waker.NonBlockingCall(ended);
  };
  Result<Done> started = pending->wait.Start(file, Text(info, 1), Flag(info, 2), notify, pending.get());
  if (!started.ok()) {
    addon.files.Keep(std::move(file));
    return FailureObject(env, started.failure());
  }
  addon.Await(env);
  const RawHandle raw = pending->wait.file().raw();
  addon.waits.emplace(raw, std::move(pending));
  return env.Undefined();
}

// (fd): of no effect once the wait has ended
Napi::Value CancelWaitCall(Info info) {
  PendingWait* pending = Of(info).FindWait(Raw(info, 0));
  if (pending == nullptr) return info.Env().Undefined();
  return DoneValue(info.Env(), pending->wait.Cancel());
}

// (fd, path)
Napi::Value CheckLockCall(Info info) {
  const FileHandle* file = Of(info).FindFile(Raw(info, 0));
  if (file == nullptr) return BadHandle(info.Env());
  Result<Currency> currency = CheckLock(*file, Text(info, 1));
  if (!currency.ok()) return FailureObject(info.Env(), currency.failure());
  const char* name = currency.value() == Currency::kCurrent   ? "current"
                     : currency.value() == Currency::kMissing ? "missing"
                                                              : "replaced";
  return Napi::String::New(info.Env(), name);
}

// (fds, paths): one call for all that an owner looks at twice a second, with the paths in one string, each ended by a NUL
Napi::Value AreCurrentCall(Info info) {
  const auto fds = info[0].As<Napi::Int32Array>();
  const std::string paths = Text(info, 1);
  bool current = true;
  std::size_t start = 0;
  for (std::size_t i = 0; current && i < fds.ElementLength(); i++) {
    const FileHandle* file = Of(info).files.Find(RawHandle{fds[i]});
    if (file == nullptr) return Napi::Boolean::New(info.Env(), false);
    if (start >= paths.size()) return Napi::Boolean::New(info.Env(), false);
    const std::string path = paths.c_str() + start;
    start += path.size() + 1;
    Result<Currency> currency = CheckLock(*file, path);
    current = currency.ok() && currency.value() == Currency::kCurrent;
  }
  return Napi::Boolean::New(info.Env(), current);
}

// (fd, data, cut)
Napi::Value WriteRecordCall(Info info) {
  const FileHandle* file = Of(info).files.Find(Raw(info, 0));
  if (file == nullptr) return BadHandle(info.Env());
  const auto data = info[1].As<Napi::Uint8Array>();
  return DoneValue(info.Env(), WriteRecord(*file, data.Data(), data.ByteLength(), Flag(info, 2)));
}

// (fd, path): "" for a file that stays
void RemoveAtEndCall(Info info) {
  if (auto* entry = Of(info).files.FindEntry(Raw(info, 0)); entry != nullptr) entry->doomed = Text(info, 1);
}

// (fd, unlocks): whatever becomes of the file, the lock is freed
Napi::Value ReleaseLockCall(Info info) {
  Addon& addon = Of(info);
  const RawHandle raw = Raw(info, 0);
  auto* const entry = addon.files.FindEntry(raw);
  if (entry == nullptr) return BadHandle(info.Env());
  const Result<bool> removed = entry->doomed.empty() ? Result<bool>(false) : RemoveLockFile(entry->handle, entry->doomed);
  if (entry->handle && Flag(info, 1)) Unlock(entry->handle);
  addon.files.Take(raw).Reset();
  return removed.ok() ? info.Env().Undefined() : FailureObject(info.Env(), removed.failure());
}

// (fd)
void CloseFileCall(Info info) { Of(info).files.Take(Raw(info, 0)).Reset(); }

// (host, port, backlog, dualStack)
Napi::Value ListenCall(Info info) { return BoundSocketObject(info, Listen(ReadBindRequest(info))); }

// (host, port, backlog, dualStack)
Napi::Value GuardCall(Info info) { return BoundSocketObject(info, Guard(ReadBindRequest(info))); }

// (fd, backlog)
Napi::Value RouseCall(Info info) {
  const SocketHandle* socket = Of(info).sockets.Find(Raw(info, 0));
  if (socket == nullptr) return BadHandle(info.Env());
  return DoneValue(info.Env(), Rouse(*socket, info[1].As<Napi::Number>().Int32Value()));
}

// (fd)
Napi::Value SilenceCall(Info info) {
  const SocketHandle* socket = Of(info).sockets.Find(Raw(info, 0));
  if (socket == nullptr) return BadHandle(info.Env());
  return DoneValue(info.Env(), Silence(*socket));
}

// (fd): a number for the runtime to take; adoptDuplicate says that it did
Napi::Value DuplicateCall(Info info) {
  const SocketHandle* socket = Of(info).sockets.Find(Raw(info, 0));
  if (socket == nullptr) return BadHandle(info.Env());
  Result<SocketCopy> copy = Duplicate(*socket);
  if (!copy.ok()) return FailureObject(info.Env(), copy.failure());
  Of(info).copies.push_back(copy.value());
  return Napi::Number::New(info.Env(), static_cast<double>(copy.value().raw));
}

// A worker that is terminated between duplicate and adoptDuplicate may have given its copy to the runtime or not: then
// CloseCopy looks, after the runtime has closed what it has.
SocketCopy TakeCopy(Info info) {
  auto& copies = Of(info).copies;
  const auto found = std::find_if(copies.begin(), copies.end(), [&](const SocketCopy& copy) { return copy.raw == Raw(info, 0); });
  if (found == copies.end()) return SocketCopy{kNoHandle, 0};
  const SocketCopy copy = *found;
  copies.erase(found);
  return copy;
}

// (duplicate)
void AdoptDuplicateCall(Info info) { TakeCopy(info); }

// (duplicate): for one that nobody took
void CloseDuplicateCall(Info info) { CloseCopy(TakeCopy(info)); }

// What is known of a socket beside its handle.
void ForgetSocket(Addon& addon, RawHandle raw) {
  addon.watches.erase(raw);
  if (const auto name = addon.names.find(raw); name != addon.names.end()) {
    RemoveLocalName(name->second);
    addon.names.erase(name);
  }
}

// (fd)
void CloseSocketCall(Info info) {
  ForgetSocket(Of(info), Raw(info, 0));
  Of(info).sockets.Take(Raw(info, 0)).Reset();
}

Napi::Value KeepSocket(Info info, Result<SocketHandle> socket) {
  if (!socket.ok()) return FailureObject(info.Env(), socket.failure());
  ForgetSocket(Of(info), socket.value().raw());  // one that was closed behind our back, as in Registry::Keep
  return Napi::Number::New(info.Env(), Of(info).sockets.Keep(std::move(socket.value())));
}

// (path)
Napi::Value ListenLocalCall(Info info) {
  Result<LocalListener> listener = ListenLocal(Text(info, 0));
  if (!listener.ok()) return FailureObject(info.Env(), listener.failure());
  const RawHandle raw = listener.value().socket.raw();
  const Napi::Value kept = KeepSocket(info, std::move(listener.value().socket));
  Of(info).names.emplace(raw, std::move(listener.value().name));
  return kept;
}

// (path)
Napi::Value ConnectLocalCall(Info info) { return KeepSocket(info, ConnectLocal(Text(info, 0))); }

// (fd): of listenLocal; any other one could wait for ever
Napi::Value AcceptLocalCall(Info info) {
  Addon& addon = Of(info);
  const SocketHandle* listener = addon.names.count(Raw(info, 0)) == 0 ? nullptr : addon.sockets.Find(Raw(info, 0));
  return listener == nullptr ? BadHandle(info.Env()) : KeepSocket(info, AcceptLocal(*listener));
}

// (fd)
Napi::Value IdentifyPeerCall(Info info) {
  const Napi::Env env = info.Env();
  const SocketHandle* socket = Of(info).sockets.Find(Raw(info, 0));
  if (socket == nullptr) return BadHandle(env);
  Result<Peer> peer = IdentifyPeer(*socket);
  if (!peer.ok()) return FailureObject(env, peer.failure());
  auto object = Napi::Object::New(env);
  object["user"] = peer.value().user;
  object["pid"] = peer.value().pid;
  return object;
}

// (fd, data, descriptors): the number of bytes that were taken; the descriptors are ours
Napi::Value SendLocalCall(Info info) {
  const Napi::Env env = info.Env();
  Addon& addon = Of(info);
  const SocketHandle* socket = addon.sockets.Find(Raw(info, 0));
  if (socket == nullptr) return BadHandle(env);
  std::vector<RawHandle> descriptors;
  for (const std::int32_t number : Integers(info, 2)) {
    const RawHandle raw{number};
    if (addon.files.Find(raw) == nullptr && addon.sockets.Find(raw) == nullptr) return BadHandle(env);
    descriptors.push_back(raw);
  }
  const auto data = info[1].As<Napi::Uint8Array>();
  Result<std::size_t> sent = SendLocal(*socket, data.Data(), data.ByteLength(), descriptors);
  return sent.ok() ? Napi::Number::New(env, static_cast<double>(sent.value())) : FailureObject(env, sent.failure());
}

// (fd)
Napi::Value ReceiveLocalCall(Info info) {
  const Napi::Env env = info.Env();
  const SocketHandle* socket = Of(info).sockets.Find(Raw(info, 0));
  if (socket == nullptr) return BadHandle(env);
  Result<LocalMessage> received = ReceiveLocal(*socket);
  if (!received.ok()) return FailureObject(env, received.failure());
  LocalMessage& message = received.value();
  auto descriptors = Napi::Array::New(env, message.descriptors.size());
  for (std::uint32_t i = 0; i < message.descriptors.size(); i++) {
    descriptors[i] = Of(info).files.Keep(std::move(message.descriptors[i]));
  }
  auto object = Napi::Object::New(env);
  object["data"] = Napi::Buffer<char>::Copy(env, message.data.data(), message.data.size());
  object["descriptors"] = descriptors;
  return object;
}

// (fd, done): EBUSY while it is awaited already
Napi::Value AwaitSocketCall(Info info) {
  const Napi::Env env = info.Env();
  Addon& addon = Of(info);
  const RawHandle raw = Raw(info, 0);
  const SocketHandle* socket = addon.sockets.Find(raw);
  if (socket == nullptr) return BadHandle(env);
  if (addon.watches.count(raw) != 0) return FailureObject(env, Failure{EBUSY, "handle"});
  if (Result<Done> opened = addon.OpenWaker(env); !opened.ok()) return FailureObject(env, opened.failure());
  auto wait = std::make_unique<HandleWait>();
  const HandleWait::Notify notify = [](void* context) { static_cast<Waker*>(context)->NonBlockingCall(); };
  if (Result<Done> started = wait->Start(socket->raw(), notify, &addon.waker); !started.ok()) {
    return FailureObject(env, started.failure());
  }
  addon.watches.emplace(raw, SocketWatch{Napi::Persistent(info[1].As<Napi::Function>()), std::move(wait)});
  return env.Undefined();
}

Napi::Value MakeBatonCall(Info info) {
  Result<FileHandle> baton = MakeBaton();
  if (!baton.ok()) return FailureObject(info.Env(), baton.failure());
  return Napi::Number::New(info.Env(), Of(info).files.Keep(std::move(baton.value())));
}

// (fd)
Napi::Value TakeBatonCall(Info info) {
  const FileHandle* baton = Of(info).files.Find(Raw(info, 0));
  if (baton == nullptr) return BadHandle(info.Env());
  Result<bool> taken = TakeBaton(*baton);
  return taken.ok() ? Napi::Boolean::New(info.Env(), taken.value()) : FailureObject(info.Env(), taken.failure());
}

// (fd)
Napi::Value DescribeSocketCall(Info info) {
  const Napi::Env env = info.Env();
  Result<InheritedSocket> found = DescribeSocket(Raw(info, 0));
  if (!found.ok()) return FailureObject(env, found.failure());
  Napi::Object object = AddressObject(env, found.value());
  object["v6only"] = found.value().v6only;
  object["listening"] = found.value().listening;
  object["reusePort"] = found.value().reuse_port;
  return object;
}

// (fd)
Napi::Value AdoptSocketCall(Info info) { return BoundSocketObject(info, AdoptSocket(Raw(info, 0))); }

// (fd, path, selfTest)
Napi::Value AdoptLockCall(Info info) {
  const bool self_test = Flag(info, 2);
  return LockAttemptResult(info, AdoptLock(Raw(info, 0), Text(info, 1), self_test), false, !self_test);
}

// (fd)
Napi::Value LendSocketCall(Info info) {
  const SocketHandle* socket = Of(info).sockets.Find(Raw(info, 0));
  return socket == nullptr ? BadHandle(info.Env()) : DoneValue(info.Env(), LendSocket(*socket));
}

// (pid)
Napi::Value IdentifyProcessCall(Info info) {
  Result<ProcessIdentity> identity = IdentifyProcess(info[0].As<Napi::Number>().Int32Value());
  if (!identity.ok()) return FailureObject(info.Env(), identity.failure());
  if (!identity.value().exists) return info.Env().Null();
  return Napi::Number::New(info.Env(), identity.value().start_time);
}

void ForgetProcess(Info info, RawHandle raw) {
  Addon& addon = Of(info);
  const auto found = addon.processes.find(raw);
  if (found == addon.processes.end()) return;
  if (found->second.wait != nullptr) addon.StopAwaiting(info.Env());
  addon.processes.erase(found);
}

OpenedProcess* FindProcess(Info info, RawHandle raw) {
  const auto found = Of(info).processes.find(raw);
  return found == Of(info).processes.end() ? nullptr : &found->second;
}

// (pid)
Napi::Value OpenProcessCall(Info info) {
  Result<FileHandle> opened = OpenProcess(info[0].As<Napi::Number>().Int32Value());
  if (!opened.ok()) return FailureObject(info.Env(), opened.failure());
  const RawHandle raw = opened.value().raw();
  // As in Registry::Keep.
  if (OpenedProcess* const stale = FindProcess(info, raw); stale != nullptr) stale->handle.Take();
  ForgetProcess(info, raw);
  Of(info).processes[raw].handle = std::move(opened.value());
  return Napi::Number::New(info.Env(), static_cast<double>(raw));
}

// (process, signal)
Napi::Value SignalProcessCall(Info info) {
  const OpenedProcess* process = FindProcess(info, Raw(info, 0));
  if (process == nullptr) return BadHandle(info.Env());
  return DoneValue(info.Env(), SignalProcess(process->handle, info[1].As<Napi::Number>().Int32Value()));
}

// (process, done): EBUSY while it is awaited already
Napi::Value AwaitExitCall(Info info) {
  const Napi::Env env = info.Env();
  Addon& addon = Of(info);
  OpenedProcess* process = FindProcess(info, Raw(info, 0));
  if (process == nullptr) return BadHandle(env);
  if (process->wait != nullptr) return FailureObject(env, Failure{EBUSY, "handle"});
  if (Result<Done> opened = addon.OpenWaker(env); !opened.ok()) return FailureObject(env, opened.failure());
  auto wait = std::make_unique<HandleWait>();
  const HandleWait::Notify notify = [](void* context) { static_cast<Waker*>(context)->NonBlockingCall(); };
  if (Result<Done> started = wait->Start(process->handle.raw(), notify, &addon.waker); !started.ok()) {
    return FailureObject(env, started.failure());
  }
  process->done = Napi::Persistent(info[1].As<Napi::Function>());
  process->wait = std::move(wait);
  addon.Await(env);
  return env.Undefined();
}

// (process)
void CloseProcessCall(Info info) { ForgetProcess(info, Raw(info, 0)); }

// (socket, message)
Napi::Value NotifyCall(Info info) { return DoneValue(info.Env(), Notify(Text(info, 0), Text(info, 1))); }

// (signals)
Napi::Value CountSentSignalsCall(Info info) { return DoneValue(info.Env(), CountSentSignals(Integers(info, 0))); }

// (signal)
Napi::Value TakeSentSignalsCall(Info info) {
  return Napi::Number::New(info.Env(), TakeSentSignals(info[0].As<Napi::Number>().Int32Value()));
}

// (pid)
Napi::Value DescribeCommandCall(Info info) {
  return Napi::String::New(info.Env(), DescribeCommand(info[0].As<Napi::Number>().Int32Value()));
}

Napi::Value IdentifyHostCall(Info info) {
  const Napi::Env env = info.Env();
  const HostIdentity host = IdentifyHost();
  const auto text = [&](const std::string& value) { return value.empty() ? env.Null() : Napi::String::New(env, value); };
  auto object = Napi::Object::New(env);
  object["bootId"] = text(host.boot_id);
  object["pidNamespace"] = text(host.pid_namespace);
  return object;
}

// (paths, hints, firstOnly)
Napi::Value FindLockHoldersCall(Info info) {
  const Napi::Env env = info.Env();
  const auto names = info[0].As<Napi::Array>();
  std::vector<std::string> paths;
  for (std::uint32_t i = 0; i < names.Length(); i++) paths.push_back(Napi::Value(names[i]).As<Napi::String>().Utf8Value());
  const std::vector<LockEvidence> found = FindLockHolders(paths, Integers(info, 1), Flag(info, 2));
  auto array = Napi::Array::New(env, found.size());
  for (std::uint32_t i = 0; i < found.size(); i++) {
    auto holders = Napi::Array::New(env, found[i].holders.size());
    for (std::uint32_t j = 0; j < found[i].holders.size(); j++) holders[j] = found[i].holders[j];
    auto object = Napi::Object::New(env);
    object["locked"] = VerdictValue(env, found[i].locked);
    object["holders"] = holders;
    array[i] = object;
  }
  return array;
}

PortUse ReadPortUse(Info info, std::size_t index) {
  const std::string name = Text(info, index);
  return name == "listening" ? PortUse::kListening : name == "bound" ? PortUse::kBound : PortUse::kConnected;
}

Napi::Object PortSocketObject(Napi::Env env, const PortSocket& socket) {
  auto object = Napi::Object::New(env);
  object["address"] = socket.address;
  object["family"] = socket.ipv6 ? "IPv6" : "IPv4";
  object["v6only"] = socket.v6only;
  object["id"] = static_cast<double>(socket.id);
  return object;
}

// (port, use)
Napi::Value FindPortSocketsCall(Info info) {
  const Napi::Env env = info.Env();
  const auto port = static_cast<std::uint16_t>(info[0].As<Napi::Number>().Uint32Value());
  Result<std::vector<PortSocket>> found = FindPortSockets(port, ReadPortUse(info, 1));
  if (!found.ok()) return FailureObject(env, found.failure());
  auto array = Napi::Array::New(env, found.value().size());
  for (std::uint32_t i = 0; i < found.value().size(); i++) array[i] = PortSocketObject(env, found.value()[i]);
  return array;
}

// (address, port)
Napi::Value FindListenerCall(Info info) {
  const auto port = static_cast<std::uint16_t>(info[1].As<Napi::Number>().Uint32Value());
  Result<PortSocket> found = FindListener(Text(info, 0), port);
  return found.ok() ? PortSocketObject(info.Env(), found.value()) : FailureObject(info.Env(), found.failure());
}

// (ids, hints)
Napi::Value FindSocketOwnersCall(Info info) {
  const Napi::Env env = info.Env();
  const auto numbers = info[0].As<Napi::Array>();
  std::vector<std::uint64_t> ids;
  for (std::uint32_t i = 0; i < numbers.Length(); i++) {
    ids.push_back(static_cast<std::uint64_t>(Napi::Value(numbers[i]).As<Napi::Number>().Int64Value()));
  }
  const std::vector<ProcessId> owners = FindSocketOwners(ids, Integers(info, 1));
  auto array = Napi::Array::New(env, owners.size());
  for (std::uint32_t i = 0; i < owners.size(); i++) {
    array[i] = owners[i] == 0 ? env.Null() : Napi::Number::New(env, owners[i]);
  }
  return array;
}

// (directory)
Napi::Value DescribeFilesystemCall(Info info) {
  const Napi::Env env = info.Env();
  Result<Filesystem> found = DescribeFilesystem(Text(info, 0));
  if (!found.ok()) return FailureObject(env, found.failure());
  const Filesystem& filesystem = found.value();
  auto object = Napi::Object::New(env);
  object["type"] = filesystem.type;
  object["remote"] = VerdictValue(env, filesystem.remote);
  object["number"] = filesystem.number;
  return object;
}

// What a call takes, a letter for each argument. A wrong one is TypeError, before anything has happened: what Node-API makes of
// it instead, an empty path or descriptor 0, is never what was meant.
//
//   s  string             b  boolean            f  function
//   h  handle or id       n  32-bit integer     p  port
//   u  Uint8Array         i  Int32Array
//   S  strings            N  32-bit integers    H  ids
struct Signature {
  const char* name;
  const char* takes;
};

bool IsIntegerWithin(Napi::Value value, double least, double most) {
  if (!value.IsNumber()) return false;
  const double number = value.As<Napi::Number>().DoubleValue();
  return number >= least && number <= most && number == std::floor(number);
}

bool IsTypedArray(Napi::Value value, napi_typedarray_type type) {
  return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type;
}

bool Takes(char letter, Napi::Value value);

// What a proxy or a getter throws is left pending: the caller sees that.
bool AreAll(char letter, Napi::Value value) {
  if (!value.IsArray()) return false;
  const auto array = value.As<Napi::Array>();
  const std::uint32_t length = array.Length();
  for (std::uint32_t i = 0; i < length; i++) {
    const Napi::Value element = array.Get(i);
    if (value.Env().IsExceptionPending() || !Takes(letter, element)) return false;
  }
  return true;
}

bool Takes(char letter, Napi::Value value) {
  constexpr double kSafe = 9007199254740991;  // Number.MAX_SAFE_INTEGER
  switch (letter) {
    case 's':
      return value.IsString();
    case 'b':
      return value.IsBoolean();
    case 'f':
      return value.IsFunction();
    case 'h':
      return IsIntegerWithin(value, -kSafe, kSafe);
    case 'n':
      return IsIntegerWithin(value, INT32_MIN, INT32_MAX);
    case 'p':
      return IsIntegerWithin(value, 0, UINT16_MAX);
    case 'u':
      return IsTypedArray(value, napi_uint8_array);
    case 'i':
      return IsTypedArray(value, napi_int32_array);
    case 'S':
      return AreAll('s', value);
    case 'N':
      return AreAll('n', value);
    case 'H':
      return AreAll('h', value);
  }
  return false;
}

template <auto kCall>
Napi::Value Checked(Info info) {
  const Napi::Env env = info.Env();
  const auto& signature = *static_cast<const Signature*>(info.Data());
  for (std::size_t i = 0; signature.takes[i] != '\0'; i++) {
    if (Takes(signature.takes[i], info[i])) continue;
    if (!env.IsExceptionPending()) {
      const std::string message = std::string(signature.name) + " takes something else as argument " + std::to_string(i + 1);
      Napi::TypeError::New(env, message).ThrowAsJavaScriptException();
    }
    return Napi::Value();
  }
  if constexpr (std::is_void_v<decltype(kCall(info))>) {
    kCall(info);
    return env.Undefined();
  } else {
    return kCall(info);
  }
}

template <auto kCall>
void Expose(Napi::Object exports, const char* name, const char* takes) {
  static Signature signature{name, takes};
  exports[name] = Napi::Function::New<Checked<kCall>>(exports.Env(), name, &signature);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Addon());
  exports["locksDirectories"] = LocksDirectories();
  Expose<TryLockFileCall>(exports, "tryLockFile", "sbb");
  Expose<GiveDirectoryCall>(exports, "giveDirectory", "s");
  Expose<TryLockDirectoryCall>(exports, "tryLockDirectory", "sb");
  Expose<StartWaitCall>(exports, "startWait", "hsbf");
  Expose<CancelWaitCall>(exports, "cancelWait", "h");
  Expose<CheckLockCall>(exports, "checkLock", "hs");
  Expose<AreCurrentCall>(exports, "areCurrent", "is");
  Expose<WriteRecordCall>(exports, "writeRecord", "hub");
  Expose<RemoveAtEndCall>(exports, "removeAtEnd", "hs");
  Expose<ReleaseLockCall>(exports, "releaseLock", "hb");
  Expose<CloseFileCall>(exports, "closeFile", "h");
  Expose<ListenCall>(exports, "listen", "spnb");
  Expose<GuardCall>(exports, "guard", "spnb");
  Expose<RouseCall>(exports, "rouse", "hn");
  Expose<SilenceCall>(exports, "silence", "h");
  Expose<DuplicateCall>(exports, "duplicate", "h");
  Expose<AdoptDuplicateCall>(exports, "adoptDuplicate", "h");
  Expose<CloseDuplicateCall>(exports, "closeDuplicate", "h");
  Expose<CloseSocketCall>(exports, "closeSocket", "h");
  Expose<DescribeSocketCall>(exports, "describeSocket", "h");
  Expose<AdoptSocketCall>(exports, "adoptSocket", "h");
  Expose<AdoptLockCall>(exports, "adoptLock", "hsb");
  Expose<LendSocketCall>(exports, "lendSocket", "h");
  Expose<ListenLocalCall>(exports, "listenLocal", "s");
  Expose<ConnectLocalCall>(exports, "connectLocal", "s");
  Expose<AcceptLocalCall>(exports, "acceptLocal", "h");
  Expose<IdentifyPeerCall>(exports, "identifyPeer", "h");
  Expose<SendLocalCall>(exports, "sendLocal", "huN");
  Expose<ReceiveLocalCall>(exports, "receiveLocal", "h");
  Expose<AwaitSocketCall>(exports, "awaitSocket", "hf");
  Expose<MakeBatonCall>(exports, "makeBaton", "");
  Expose<TakeBatonCall>(exports, "takeBaton", "h");
  Expose<OpenProcessCall>(exports, "openProcess", "n");
  Expose<SignalProcessCall>(exports, "signalProcess", "hn");
  Expose<AwaitExitCall>(exports, "awaitExit", "hf");
  Expose<CloseProcessCall>(exports, "closeProcess", "h");
  Expose<NotifyCall>(exports, "notify", "ss");
  Expose<CountSentSignalsCall>(exports, "countSentSignals", "N");
  Expose<TakeSentSignalsCall>(exports, "takeSentSignals", "n");
  Expose<IdentifyProcessCall>(exports, "identifyProcess", "n");
  Expose<DescribeCommandCall>(exports, "describeCommand", "n");
  Expose<IdentifyHostCall>(exports, "identifyHost", "");
  Expose<FindLockHoldersCall>(exports, "findLockHolders", "SNb");
  Expose<FindPortSocketsCall>(exports, "findPortSockets", "ps");
  Expose<FindListenerCall>(exports, "findListener", "sp");
  Expose<FindSocketOwnersCall>(exports, "findSocketOwners", "HN");
  Expose<DescribeFilesystemCall>(exports, "describeFilesystem", "s");
  return exports;
}

}  // namespace
}  // namespace gateway_lock

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) { return gateway_lock::Init(env, exports); }

NODE_API_MODULE(gateway_lock, InitAddon)
