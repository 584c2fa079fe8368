import { release } from 'node:os';
import { PAGE_SIZE } from '../../src/sys/libc.ts';
import { note } from '../guest/check.ts';
import { checkTests } from '../guest/own-tests.ts';
import { checkArchive, checkBuilt } from '../guest/product.ts';

/**
 * Long, as it takes another image and another processor, which is emulated: what differs by processor and by the size of a page. These are
 * system calls and their numbers, the registers of a traced thread, mappings and bitmaps; the core of the bridge is the same everywhere.
 */

note(`Linux ${release()} of ${process.arch}, pages of ${PAGE_SIZE} bytes, Node ${process.version}`);

await checkBuilt();
await import('./state-file.ts');
await import('./clients.ts');
await checkArchive();
await checkTests('test/abi', 'test/sys', 'test/kernel');
await checkTests('test/interpose/trap');
await import('./bridged.ts');
