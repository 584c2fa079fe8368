import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { presentV1 } from '../../src/bridge/index.ts';
import { V1 } from '../../src/v1/states.ts';
import { noise } from '../support/bytes.ts';
import { failure, notYet, outcome } from '../support/errno.ts';
import { numRuns, PROPERTY_TIMEOUT } from '../support/runs.ts';
import { SpyV2 } from '../support/spy-v2.ts';
import { TapeV2, type Answer } from '../support/tape-v2.ts';
import { v1User } from '../support/v1-user.ts';

type Event = { readonly bytes: number } | 'none' | 'ENOMSG' | 'EAGAIN' | 'EINTR' | 'EIO';

/** What a driver such as mlx5 may answer: chunks of any size, pauses, signals, failures that pass. */
const event: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 9000 }).map((bytes) => ({ bytes })) },
  { weight: 3, arbitrary: fc.constantFrom<Event[]>('none', 'ENOMSG', 'EAGAIN', 'EINTR', 'EIO') },
);
/** In STOP_COPY 0 would be the end. */
const stopEvent = event.filter((one) => one !== 'none' && one !== 'ENOMSG');

function answerOf(one: Event, seed: number): Answer {
  if (typeof one === 'object') return noise(one.bytes, seed + 1);
  switch (one) {
    case 'none':
      return 0;
    case 'ENOMSG':
      return failure('ENOMSG', 'ERR_NO_DATA_NOW');
    case 'EAGAIN':
      return notYet();
    case 'EINTR':
      return failure('EINTR', 'ERR_SYSCALL');
    case 'EIO':
      return failure('EIO');
  }
}

describe('presentV1 over a driver with any answers', () => {
  test(
    'loses, doubles and moves no byte, whenever the VMM looks and whenever it stops the device',
    () => {
      const look = fc.constantFrom('pending', 'take', 'offset', 'again' as const);
      fc.assert(
        fc.property(
          fc.array(event, { maxLength: 12 }),
          fc.array(stopEvent, { maxLength: 12 }),
          fc.array(look, { maxLength: 30 }),
          fc.constantFrom(4096, 8192),
          (before, after, looks, section) => {
            // what pre-copy leaves unread would be read in STOP_COPY, where 0 and ENOMSG have another meaning
            const preCopy = before.map((one, n) => answerOf(one, n));
            const stopCopy = after.map((one, n) => answerOf(one, 100 + n));
            const expected = [...preCopy, ...stopCopy].filter((answer) => answer instanceof Uint8Array);
            const tape = new TapeV2({ answers: preCopy, stopAnswers: stopCopy });
            const spy = new SpyV2(tape);
            const user = v1User(presentV1(spy, { dataSection: new Uint8Array(section), bufferSize: section / 2 }));
            const received: Uint8Array[] = [];
            let taken: Uint8Array | undefined;
            const pending = (): number => {
              let value = 1; // an error says nothing about the end
              const answer = outcome(() => {
                value = user.pending();
              });
              if (taken !== undefined) received.push(taken);
              taken = undefined;
              expect(['OK', 'EAGAIN', 'EIO']).toContain(answer);
              return value;
            };
            const take = (): void => {
              outcome(() => {
                const buffer = user.buffer();
                if (taken !== undefined) expect(buffer).toBeBytes(taken);
                taken = buffer.length > 0 ? buffer : undefined;
              });
            };
            user.setState(V1.PRE_COPY);
            for (const one of looks) {
              if (one === 'pending') pending();
              else if (one === 'again') user.setState(V1.PRE_COPY);
              else if (one === 'offset' && taken !== undefined) expect(user.size()).toBe(taken.length);
              else take();
            }
            // the rest of pre-copy, as far as it ends in "no data now"
            tape.stopAnswers.unshift(...tape.answers.splice(0).filter((answer) => answer !== 0 && !isEnomsg(answer)));
            user.setState(V1.STOP_COPY);
            for (let steps = 0; pending() > 0; steps += 1) {
              take();
              if (steps > 500) throw new Error('the save does not end');
            }
            expect(received).toBeBytes(expected);
            expect(received).toBeBytes(spy.bytes('out'));
          },
        ),
        { numRuns: numRuns() },
      );
    },
    PROPERTY_TIMEOUT,
  );
});

function isEnomsg(answer: Answer): boolean {
  return answer instanceof Error && answer.errno === 'ENOMSG';
}
