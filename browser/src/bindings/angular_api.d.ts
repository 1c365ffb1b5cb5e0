import type { HttpContextToken, HttpInterceptorFn } from "@angular/common/http";
import type { Signal } from "@angular/core";
import type { CoreSession, Session, Status } from "../api.d.ts";

/** Return an interceptor: `provideHttpClient(withInterceptors([sessionInterceptor(session)]))`. */
export declare function sessionInterceptor(session: Pick<CoreSession<any>, "send" | "UnbrokenError">): HttpInterceptorFn;

/** Send a request without the token: `http.get(url, { context: new HttpContext().set(WITHOUT_SESSION, true) })`. */
export declare const WITHOUT_SESSION: HttpContextToken<boolean>;

/** Return the status as a signal. To be called where `inject` may be. */
export declare function sessionStatus<User = any>(session: Session<User>): Signal<Status<User>>;

/** Return the path that the login page has as `back`, if it is one of this site; otherwise `home`. */
export declare function wayBack(back: unknown, home?: string): string;
