import { Ledgers, LEDGERS_SIZE } from '../../src/interpose/memory/ledger.ts';
import type { Call } from '../../src/interpose/trap/call.ts';
import { Turn } from '../../src/interpose/memory/turn.ts';
import type { NotificationReply } from '../../src/sys/seccomp.ts';

/** Answers to nobody: the calls of this process itself wait for none. */
export class NoAnswers implements NotificationReply {
  isValid(): boolean {
    return true;
  }
  respond(_notification: Uint32Array, _value: number, _error: number, _flags?: number): void {}
  goesOn(): void {}
  addFd(): number {
    throw new Error('nobody takes a descriptor');
  }
}

/** The turn in which a call is served. */
export function turnOf(
  call: Call,
  ledgers: Ledgers = new Ledgers(new Uint8Array(LEDGERS_SIZE)),
  answers: NotificationReply = new NoAnswers(),
): Turn {
  const turn = new Turn(answers, ledgers, call);
  turn.begin(call);
  return turn;
}
