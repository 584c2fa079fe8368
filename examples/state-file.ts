// What is in a file of `vfio-shim save`, which may be larger than memory.
// In a clone: npx tsx examples/state-file.ts FILE
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { StateReader } from 'vfio-shim/state-file';

const file = openSync(process.argv[2] ?? '', 'r');
try {
  const state = new StateReader({
    size: fstatSync(file).size,
    read: (into, position) => readSync(file, into, 0, into.length, position),
  });
  state.check(); // all of it, with its hash: throws ERR_FILE_CORRUPT
  const { protocol, identity, bytes, buffers } = state.header;
  console.log(`of a device that speaks ${protocol}: ${bytes} bytes in ${buffers} buffers`);
  for (const [name, value] of Object.entries(identity)) console.log(`${name} ${value}`);

  for (const { size, at, bytes: piece } of state.pieces(64 * 1024)) {
    if (at === 0) console.log(`buffer of ${size} bytes: ${Buffer.from(piece.subarray(0, 16)).toString('hex')}`);
  }
} finally {
  closeSync(file);
}
