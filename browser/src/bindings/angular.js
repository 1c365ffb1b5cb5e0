/**
 * Angular: an interceptor of HttpClient, and the status as a signal.
 *
 * 1. Whatever `observe` and `responseType` are, the caller gets what HttpClient would give: progress as it comes, one
 *    response, and errors as HttpErrorResponse.
 * 2. A caller that unsubscribes ends the request, and waits for no refresh.
 * 3. A request with a token goes to the URL that was judged.
 * 4. A header of another name than `Authorization` needs control of redirects, which XMLHttpRequest has not.
 *
 * @import { HttpErrorResponse, HttpEvent, HttpResponse } from "@angular/common/http"
 */
import { HttpBackend, HttpContextToken, HttpParams, HttpXhrBackend } from "@angular/common/http";
import { DestroyRef, inject, signal } from "@angular/core";
import { Observable } from "rxjs";

export { wayBack } from "./shared.js";

const RESPONSE = 4; // HttpEventType.Response

/** @type {typeof import("./angular_api.d.ts").WITHOUT_SESSION} */
export const WITHOUT_SESSION = new HttpContextToken(() => false);

/** @type {typeof import("./angular_api.d.ts").sessionInterceptor} */
export const sessionInterceptor = (session) => (request, next) => {
  const cannotStop = inject(HttpBackend) instanceof HttpXhrBackend; // rule 4
  /** @param {import("../api.d.ts").AdapterPlan} plan */
  const planned = ({ url, headers, redirect, credentials }) => {
    if (redirect && cannotStop)
      throw new session.UnbrokenError("misconfigured", "this header needs provideHttpClient(withFetch())", { field: "header" });
    return request.clone({
      url, // rule 3
      params: new HttpParams(),
      setHeaders: headers,
      withCredentials: !!credentials || request.withCredentials,
      .../** @type {{}} */ (redirect && { redirect }),
    });
  };
  return new Observable((subscriber) => {
    const leave = new AbortController();
    /** @type {import("rxjs").Subscription | undefined} */
    let sending;
    session
      .send({
        url: request.urlWithParams,
        unbroken: !request.context.get(WITHOUT_SESSION),
        header: (name) => request.headers.get(name),
        body: request.body,
        signal: leave.signal,
        send: (plan) =>
          new Promise((resolve, reject) => {
            sending = next(plan ? planned(plan) : request).subscribe({
              next: (event) => (event.type === RESPONSE ? resolve(/** @type {any} */ (event)) : subscriber.next(event)),
              error: (error) => (error.status ? resolve(error) : reject(error)),
            });
          }),
        head: ({ status, headers, url }) => ({ status, headers, url: url ?? "" }),
        read: textOf,
      })
      .then((/** @type {HttpResponse<any> | HttpErrorResponse} */ response) => {
        if (!response.ok) throw response; // rule 1
        subscriber.next(/** @type {HttpEvent<any>} */ (response));
        subscriber.complete();
      })
      .catch((error) => subscriber.error(error));
    return () => {
      leave.abort(); // rule 2
      sending?.unsubscribe();
    };
  });
};

/** @param {any} response @returns {Promise<string>} */
const textOf = async ({ body, error }) => {
  const content = body ?? error?.text ?? error;
  if (content instanceof Blob || content instanceof ArrayBuffer) return new Response(content).text();
  return typeof content === "string" ? content : JSON.stringify(content);
};

/** @type {typeof import("./angular_api.d.ts").sessionStatus} */
export const sessionStatus = (session) => {
  const now = signal(session.status);
  if (globalThis.document) inject(DestroyRef).onDestroy(session.subscribe(() => now.set(session.status)));
  return now.asReadonly();
};
