// One end of a conversation by a Unix socket: messages of JSON, one a line, some of them with descriptors.

import { constants } from "node:os";
import { systemError } from "../errors.ts";
import { callAt, type Limits, onAbort } from "../lock/wait.ts";
import { isFailure, type LocalMessage, type NativeFailure, native, type Peer } from "../native.ts";
import type { Message } from "./protocol.ts";

/** No message of ours is longer, and no more than this many are waited with. */
const MAX_MESSAGE_BYTES = 65536;
const MAX_UNREAD = 100;

/** What was received, and the descriptors that came with it, which are the receiver's to close. */
export interface Delivery {
  readonly message: Message;
  readonly descriptors: readonly number[];
}

/** Nothing comes any more, and nothing can be sent: the other side has closed its end, which a death does too. */
export class EndOfChannel extends Error {
  override readonly name: string = "EndOfChannel";

  constructor(reason: string = "the other process is gone") {
    super(reason);
  }
}

/** The deadline has passed. */
export class Silence extends Error {
  override readonly name: string = "Silence";
}

export class Channel {
  readonly #fd: number;
  readonly #inbox: Delivery[] = [];
  #text = "";
  #descriptors: number[] = [];
  /** Why nothing comes any more. */
  #end: Error | null = null;
  #wake: () => void = () => {};
  #onEnd: () => void = () => {};

  /** Of a connected socket, which is closed with it. */
  constructor(fd: number) {
    this.#fd = fd;
    this.#listen();
  }

  /** @throws SystemError */
  static connect(path: string): Channel {
    const fd = native().connectLocal(path);
    if (isFailure(fd)) throw systemError(fd, path);
    return new Channel(fd);
  }

  /** @throws SystemError */
  get peer(): Peer {
    const peer = native().identifyPeer(this.#fd);
    if (isFailure(peer)) throw failed(peer);
    return peer;
  }

  /** Called once, when nothing comes any more. What has come before can still be received. */
  set onEnd(callback: () => void) {
    this.#onEnd = callback;
    if (this.#end !== null) queueMicrotask(callback);
  }

  /**
   * Never waits: what is said here is short, and answered. Also when nothing can be received any more.
   *
   * @throws EndOfChannel; SystemError
   */
  send(message: Message, descriptors: readonly number[] = []): void {
    const data = Buffer.from(`${JSON.stringify(message)}\n`);
    const sent = native().sendLocal(this.#fd, data, descriptors);
    if (sent === data.length) return;
    if (isFailure(sent)) throw GONE.has(sent.errno) ? new EndOfChannel() : failed(sent);
    throw new Error("the other process does not read what it is told");
  }

  /**
   * The next message, where no descriptors are expected.
   *
   * @throws as `receive`
   */
  async expect(limits: Limits): Promise<Message> {
    const { message, descriptors } = await this.receive(limits);
    closeAll(descriptors);
    return message;
  }

  /** @throws EndOfChannel, Silence; `signal.reason`; SystemError; Error if what came is no message */
  async receive({ deadline, signal }: Limits): Promise<Delivery> {
    for (;;) {
      signal?.throwIfAborted();
      const delivery = this.#inbox.shift();
      if (delivery !== undefined) return delivery;
      if (this.#end !== null) throw this.#end;
      if (performance.now() >= deadline) throw new Silence("the other process says nothing");
      await new Promise<void>((resolve) => {
        const stopTimer = callAt(deadline, () => this.#wake());
        const stopListening = onAbort(signal, () => this.#wake());
        this.#wake = () => {
          stopTimer();
          stopListening();
          resolve();
        };
      });
    }
  }

  /** Idempotent. What has not been received is closed. */
  close(): void {
    native().closeSocket(this.#fd);
    this.#stop(new EndOfChannel());
    for (const { descriptors } of this.#inbox.splice(0)) closeAll(descriptors);
  }

  #listen(): void {
    const failure = native().awaitSocket(this.#fd, () => this.#read());
    if (isFailure(failure)) this.#stop(failed(failure));
  }

  /** A little at a time: whoever talks without end is not to keep this process from anything. */
  #read(): void {
    const received = native().receiveLocal(this.#fd);
    if (!isFailure(received)) this.#take(received);
    else if (received.errno !== constants.errno.EAGAIN)
      this.#stop(GONE.has(received.errno) ? new EndOfChannel() : failed(received));
    if (this.#end === null) this.#listen();
    this.#wake();
  }

  /** Descriptors come with the first byte of their message, and may come with the last ones of what was said before. */
  #take({ data, descriptors }: LocalMessage): void {
    this.#descriptors.push(...descriptors);
    if (data.length === 0) this.#stop(new EndOfChannel());
    const lines = (this.#text + data.toString("latin1")).split("\n");
    this.#text = lines.pop() as string;
    for (const line of lines) {
      const message = parse(line);
      const count = message?.type === "claim" ? message.kinds.length : 0;
      if (message !== null && count <= this.#descriptors.length)
        this.#inbox.push({ message, descriptors: this.#descriptors.splice(0, count) });
      else this.#stop(new Error("the other process says what can't be understood"));
    }
    if (this.#text.length > MAX_MESSAGE_BYTES || this.#inbox.length > MAX_UNREAD)
      this.#stop(new Error("what the other process says has no end"));
  }

  #stop(end: Error): void {
    closeAll(this.#descriptors.splice(0));
    if (this.#end !== null) return;
    this.#end = end;
    this.#onEnd();
    this.#wake();
  }
}

/** EPIPE of sendmsg(2), ECONNRESET of recvmsg(2); EBADF: closed here. */
const GONE: ReadonlySet<number> = new Set([constants.errno.EPIPE, constants.errno.ECONNRESET, constants.errno.EBADF]);

function failed(failure: NativeFailure): Error {
  return systemError(failure, "a handover socket");
}

export function closeAll(descriptors: readonly number[]): void {
  for (const fd of descriptors.toReversed()) native().closeFile(fd);
}

/** `null`: none of ours. */
function parse(line: string): Message | null {
  try {
    const message: unknown = JSON.parse(Buffer.from(line, "latin1").toString("utf8"));
    if (typeof message !== "object" || message === null || !("type" in message)) return null;
    const isClaim = "kinds" in message && Array.isArray(message.kinds);
    return isClaim === (message.type === "claim") ? (message as Message) : null;
  } catch {
    return null;
  }
}
