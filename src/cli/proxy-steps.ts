import { MessageRecorder } from '../vfio-user/watch/message-recorder.ts';
import { RecordedService } from '../vfio-user/watch/recorded-service.ts';
import { ProxyService } from '../vfio-user/proxy/proxy-service.ts';
import { LARGEST_BUFFER } from '../vfio-user/proxy/translation.ts';
import { say } from './output.ts';
import type { ProxyOrder } from './proxy.ts';
import { recordingHeader } from './recording.ts';
import { listenAndServe, recorded } from './serve-steps.ts';
import { ServiceRecording } from './service-recording.ts';

/** Stands between clients and a server until this process is to end. */
export function carryOutProxy(order: ProxyOrder & { readonly stop: number }): void {
  const { listen, connect: server, timeout, recording } = order;
  const stop = { fd: order.stop, heeded: true };
  const warn = (why: string): void => say(`vfio-shim: ${why}\n`);
  const options = { ...order, server, stop, warn };
  const begun = ServiceRecording.begin(recording, () => headerOf(order));
  if (begun === undefined) {
    listenAndServe(listen, new ProxyService(options), { timeout, stop });
    return;
  }
  const recorder = new MessageRecorder(server, begun);
  const proxy = new RecordedService(new ProxyService({ ...options, recorder }), recorder, begun);
  recorded(begun, () => listenAndServe(listen, proxy, { timeout, stop }));
}

/** What the server's device speaks is known with the first client, which `opened` tells. */
function headerOf(order: ProxyOrder): ReturnType<typeof recordingHeader> {
  return recordingHeader({
    command: 'proxy',
    present: order.present,
    devices: [],
    options: {
      'round-trip': order.roundTrip,
      segmentation: order.segmentation,
      'data-size': order.dataSection,
      'buffer-size': LARGEST_BUFFER,
      'drop-precopy': order.dropPrecopy,
      'on-error': 'reset',
      'v1-stop-by-saving': true,
      'v1-stop-after-load': false,
    },
  });
}
