import { ShimError } from '../../error.ts';
import { V1Restore } from '../../v1/restore.ts';
import { StreamReader } from '../../qemu-stream/stream-reader.ts';
import type { StreamTag } from '../../qemu-stream/stream.ts';
import { receive, say, Word } from './channel.ts';
import type { FdDevice } from './fd-device.ts';
import { sha256 } from '../hash.ts';
import { tell } from './steps.ts';

const CHUNK = 1024 * 1024;

/** Takes a migrated device in and lets it run. */
export function takeIn(device: FdDevice): void {
  const restore = new V1Restore(device);
  restore.setup();
  say(Word.READY);
  for (const { tag, bytes } of records(device.config.length)) {
    if (tag === 'DEV_DATA_STATE') restore.load(bytes);
    else if (tag === 'DEV_CONFIG_STATE') checkConfig(device, bytes);
  }
  restore.complete();
  tell({ step: 'running' });
  say(Word.LOADED);
  tell({ step: 'guest memory', bytes: device.bar.length, sha256: sha256(device.bar) });
}

/** The records of one device, each with all its bytes (memory that is reused), up to the one that closes its configuration. */
function* records(configSize: number): Generator<{ tag: StreamTag; bytes: Uint8Array }> {
  const reader = new StreamReader({ configSize });
  const chunk = new Uint8Array(CHUNK);
  let tag: StreamTag = 'END_OF_STATE';
  let memory = new Uint8Array(CHUNK);
  let bytes = memory;
  for (;;) {
    for (const event of reader.push(chunk.subarray(0, receive(chunk)))) {
      if (event.kind === 'record') {
        if (event.tag === 'END_OF_STATE' && tag === 'DEV_CONFIG_STATE') return;
        tag = event.tag;
        const size = event.size ?? 0;
        if (memory.length < size) memory = new Uint8Array(size);
        bytes = memory.subarray(0, size);
      } else {
        bytes.set(event.bytes, event.at);
        if (event.at + event.bytes.length === event.size) yield { tag, bytes };
      }
    }
  }
}

/** The identification registers of a PCI device's configuration space must agree, as QEMU's own loader demands. */
function checkConfig(device: FdDevice, config: Uint8Array): void {
  const mine = Buffer.from(device.config.subarray(0, 4));
  if (mine.equals(config.subarray(0, 4))) return;
  throw new ShimError('ERR_DEVICE', 'migration: the state is of another kind of device');
}
