import { checkLive, checkThroughFile, type Crossing } from '../guest/crossing.ts';
import { NEW, OLD, ROUND, type End } from '../guest/pair.ts';

/** Unmodified old and new VMMs migrate a device of a real v2 driver, to each other and back. */

const AUTO: End = { qemu: '7.2', shim: [] };

const crossings: readonly Crossing[] = [
  ['7.2 under run to 7.2 under run', OLD, OLD],
  ['7.2 under run to native 10.0', OLD, NEW],
  ['native 10.0 to 7.2 under run', NEW, OLD],
  ['10.0 under run --present v2 --round-trip to native 10.0', ROUND, NEW],
  ['native 10.0 to 10.0 under run --present v2 --round-trip', NEW, ROUND],
  ['7.2 under run, both protocols shown, to 10.0 under the same', AUTO, { qemu: '10.0', shim: [] }],
];

await checkLive(crossings);
await checkThroughFile(crossings);
