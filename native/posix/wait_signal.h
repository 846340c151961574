// The signal that gets a thread out of a blocking flock(2).
#pragma once

namespace gateway_lock {

// A signal that nobody in this process handles, and that Node has no name for, so that no program of a user handles it
// later; 0 if there is none.
int ChooseWaitSignal() noexcept;

}  // namespace gateway_lock
