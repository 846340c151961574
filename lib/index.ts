// What users see; nothing is decided here.

export { acquireGateway } from "./acquire.ts";
export type { GatewayLockChannel, GatewayLockEvent, GatewayLockMessage } from "./diagnostics.ts";
export type { ConflictingResource, GatewayLockErrorCode, GatewayLockErrorDetails, PortListener } from "./errors.ts";
export { EXIT, GatewayLockError } from "./errors.ts";
export type { CloseOptions, Gateway } from "./gateway.ts";
export type { CheckName, DoctorOptions, Finding } from "./inspect/doctor.ts";
export { diagnose } from "./inspect/doctor.ts";
export type { GatewayReport, GatewayVerdict, ListenerReport } from "./inspect/report.ts";
export { inspectGateway } from "./inspect/status.ts";
export { bindExclusive } from "./listener/claim.ts";
export type { ClaimedAddress, ExclusiveListener, SkippedAddress } from "./listener/exclusive-listener.ts";
export type { HealthOptions, HealthReport, HealthTarget } from "./listener/health.ts";
export type { FileLock, LockOptions, TryLockOptions } from "./lock/file-lock.ts";
export { lockFile, tryLockFile } from "./lock/file-lock.ts";
export type { OwnerReading, OwnerRecord, Phase, Supervisor } from "./lock/record.ts";
export { readOwner } from "./lock/record.ts";
export type {
  GatewayOptions,
  HandoverOptions,
  InspectOptions,
  JsonValue,
  ListenerOptions,
  Metadata,
  RetryOptions,
  Scheme,
  SuperviseOptions,
} from "./options.ts";
export type { IsolationFinding, ProfileInstance } from "./profile/isolation.ts";
export { checkIsolation } from "./profile/isolation.ts";
export type { Profile, ProfileOptions } from "./profile/profile.ts";
export { derivedPorts, resolveProfile } from "./profile/profile.ts";
export type { Acquired, LeftInControl } from "./supervisor/supervise.ts";
export { superviseGateway } from "./supervisor/supervise.ts";
